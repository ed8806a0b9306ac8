"""The last answer of a pure function, kept for whoever asks for the same once more."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Answer = TypeVar("Answer")


class LastCallCache(Generic[Answer]):
    """Remembers one answer, as long as the very same objects are asked about.

    Objects are told apart by identity and held weakly, and a tensor that was changed in place is another one. So is an
    answer with a graph from one without.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._asked: list[weakref.ref[object]] = []
        self._answer: Answer | None = None

    def __reduce__(self) -> tuple[type[LastCallCache[Answer]], tuple[()]]:
        """Copies and processes start with nothing to remember."""
        return type(self), ()

    def of(self, settings: object, about: Sequence[object], compute: Callable[[], Answer]) -> Answer:
        """The answer, computed if it is not the latest one.

        Args:
            settings: whatever else the answer depends on, compared by equality.
            about: the objects that are asked about.
            compute: the function.
        """
        versions = [thing._version for thing in about if isinstance(thing, Tensor) and not thing.is_inference()]
        key = (settings, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), versions)
        same = len(self._asked) == len(about) and all(a() is b for a, b in zip(self._asked, about, strict=True))
        if self._answer is None or key != self._key or not same:
            self._answer = compute()
            self._key, self._asked = key, [weakref.ref(thing) for thing in about]
        return self._answer
