"""Noise times and shapes, checked where they come in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def time_type(like: Tensor) -> torch.dtype:
    """The floating-point type of times: the samples', but not half precision, in which noise levels run together."""
    return torch.promote_types(like.dtype, torch.float32)


def times_of(t: float | Tensor, like: Tensor) -> Tensor:
    """One time for each sample, (B,); where t is a number it is on the CPU and of `time_type`.

    Args:
        t: a number or a tensor of no dimension, for all samples; or (B,), which stays as it is.
        like: (B, *D) the samples.

    Raises:
        ValueError: if t has another shape.
    """
    if not isinstance(t, Tensor):
        return torch.full((len(like),), t, dtype=time_type(like))
    if t.ndim == 0:
        return t.to(time_type(like)).expand(len(like))
    if t.shape != like.shape[:1]:
        raise ValueError(f"t must be a number or ({len(like)},), one time for each sample; got {tuple(t.shape)}")
    return t


def require_times(t: Tensor) -> Tensor:
    """The times, (B,), if they lie in [0, 1]. On an accelerator they are not checked: that would wait for the device.

    Raises:
        ValueError: if one does not.
    """
    if t.device.type == "cpu":
        outside = ~((t >= 0) & (t <= 1))
        if bool(outside.any()):
            raise ValueError(f"t must lie in [0, 1], got {t[outside][0].item():g}")
    return t


def as_tensor(t: float | Tensor) -> Tensor:
    """A time as a tensor; a plain number becomes float64 without dimensions."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


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
