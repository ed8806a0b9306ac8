"""A cache of the last result of a pure function."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class LastCallCache(Generic[Result]):
    """Stores the result of the last call, which is reused as long as the arguments are the same objects.

    Arguments are compared by identity and referenced weakly. A tensor that was changed in place counts as a new
    argument, and a result with an autograd graph is distinct from one without.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._arguments: list[weakref.ref[object]] = []
        self._result: Result | None = None

    def __reduce__(self) -> tuple[type[LastCallCache[Result]], tuple[()]]:
        """Copy or pickle as an empty cache."""
        return type(self), ()

    def of(self, settings: object, arguments: Sequence[object], compute: Callable[[], Result]) -> Result:
        """Return the stored result, or compute it.

        Args:
            settings: other values that determine the result, compared by equality.
            arguments: the objects that determine the result, compared by identity.
            compute: computes the result.
        """
        versions = [each._version for each in arguments if isinstance(each, Tensor) and not each.is_inference()]
        key = (settings, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), versions)
        same = len(self._arguments) == len(arguments) and all(
            stored() is each for stored, each in zip(self._arguments, arguments, strict=True)
        )
        if self._result is None or key != self._key or not same:
            self._result = compute()
            self._key = key
            self._arguments = [weakref.ref(each) for each in arguments]
        return self._result
