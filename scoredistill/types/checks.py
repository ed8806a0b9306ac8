"""Checks of noise times and tensor shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def time_type(like: Tensor) -> torch.dtype:
    """The floating-point type of times, at least float32: half precision does not resolve noise levels."""
    return torch.promote_types(like.dtype, torch.float32)


def times_of(t: float | Tensor, like: Tensor) -> Tensor:
    """One time per sample, (B,). A number becomes a CPU tensor of `time_type`.

    Args:
        t: a number or a 0-dimensional tensor for all samples, or (B,), which is returned unchanged.
        like: (B, *D) the samples.

    Raises:
        ValueError: if t has another shape.
    """
    if not isinstance(t, Tensor):
        return torch.full((len(like),), t, dtype=time_type(like))
    if t.ndim == 0:
        return t.to(time_type(like)).expand(len(like))
    if t.shape != like.shape[:1]:
        raise ValueError(f"t must be a number or ({len(like)},), one time per sample; got {tuple(t.shape)}")
    return t


def require_times(t: Tensor) -> Tensor:
    """Return the times, (B,), after checking that they lie in [0, 1]. Not checked on an accelerator, to avoid a sync.

    Raises:
        ValueError: if a time lies outside.
    """
    if t.device.type == "cpu":
        outside = ~((t >= 0) & (t <= 1))
        if bool(outside.any()):
            raise ValueError(f"t must lie in [0, 1], got {t[outside][0].item():g}")
    return t


def as_tensor(t: float | Tensor) -> Tensor:
    """Convert a time to a tensor; a number becomes a 0-dimensional float64 tensor."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def require_shape(value: Tensor, shape: Sequence[int], what: str) -> Tensor:
    """Return a tensor after checking its shape.

    Args:
        value: any tensor.
        shape: the expected shape.
        what: description of the tensor, for the message.

    Raises:
        ValueError: if the shape differs.
    """
    if value.shape != tuple(shape):
        raise ValueError(f"{what} has shape {tuple(value.shape)}; it must be {tuple(shape)}, nothing is broadcast")
    return value
