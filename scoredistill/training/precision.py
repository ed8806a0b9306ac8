"""Lightning's true precisions (64-true, bf16-true, 16-true) over our batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from pytorch_lightning.plugins.precision import Precision
from torch import Tensor

from scoredistill.rendering.camera import Camera


def convert_batches(plugin: Precision) -> None:
    """Let a precision plugin convert batches field by field.

    Its own way copies a dataclass and sets the fields, which a frozen one refuses.

    Args:
        plugin: of the trainer.
    """
    convert = partial(type(plugin).convert_input, plugin)
    plugin.convert_input = partial(converted, convert=convert)  # type: ignore[method-assign]


def converted(value: Any, convert: Callable[[Any], Any]) -> Any:
    """A batch, or a part of one, in another floating-point type. Integers stay integers.

    Cameras keep single precision where the networks have half: a rounded pose moves the picture by pixels.

    Args:
        value: a batch, a tensor, or whatever a batch holds.
        convert: what to do with a tensor; it leaves alone what is none.
    """
    if not is_dataclass(value) or isinstance(value, type):
        return convert(value)
    each = (
        partial(_at_least_single, convert=convert) if isinstance(value, Camera) else partial(converted, convert=convert)
    )
    return replace(value, **{field.name: each(getattr(value, field.name)) for field in fields(value)})


def _at_least_single(value: Tensor, convert: Callable[[Any], Any]) -> Tensor:
    found: Tensor = convert(value)
    return value if found.dtype.itemsize < 4 else found
