"""Conversion of batches for Lightning's true precisions (64-true, bf16-true, 16-true)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from pytorch_lightning.plugins.precision import Precision
from torch import Tensor

from scoredistill.rendering.camera import Camera


def convert_batches(plugin: Precision) -> None:
    """Make a precision plugin convert batches field by field.

    Lightning copies a dataclass and sets its fields, which fails for a frozen one.

    Args:
        plugin: the trainer's precision plugin.
    """
    convert = partial(type(plugin).convert_input, plugin)
    plugin.convert_input = partial(converted, convert=convert)  # type: ignore[method-assign]


def converted(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Convert a batch, or a part of one, to another floating-point type. Integers are unchanged.

    Cameras keep at least single precision, because a pose in half precision moves the picture by pixels.

    Args:
        value: a batch, or any of its values.
        convert: converts a tensor and returns other values unchanged.
    """
    if not is_dataclass(value) or isinstance(value, type):
        return convert(value)
    each = (
        partial(_at_least_single, convert=convert) if isinstance(value, Camera) else partial(converted, convert=convert)
    )
    return replace(value, **{field.name: each(getattr(value, field.name)) for field in fields(value)})


def _at_least_single(value: Tensor, convert: Callable[[Any], Any]) -> Tensor:
    result: Tensor = convert(value)
    return value if result.dtype.itemsize < 4 else result
