"""Shapes that are said and not left to broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def require_shape(value: Tensor, shape: Sequence[int], what: str) -> Tensor:
    """The tensor itself, if it has the shape.

    Args:
        value: any tensor.
        shape: what is expected.
        what: who made it and what it is, for the message.

    Raises:
        ValueError: if it has another shape.
    """
    if value.shape != tuple(shape):
        raise ValueError(f"{what} has shape {tuple(value.shape)}; it must be {tuple(shape)}, nothing is broadcast")
    return value
