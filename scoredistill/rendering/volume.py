"""Volume rendering of packed ray samples: rays have different numbers of samples, stored one ray after another.

    w_i = T_i (1 - exp(-tau_i)),   T_i = exp(-sum_{j < i} tau_j),   tau_i = density_i · step_i

"NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934, section 4;
packed samples as in "NerfAcc: Efficient Sampling Accelerates NeRFs" (2023), arXiv:2305.04966.

Below, M is the number of samples, `ray` (M,) is the non-decreasing integer index of each sample's ray, and `rays` is
the number of rays. A ray may have no samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _exclusive_cumsum(value: Tensor, ray: Tensor) -> Tensor:
    # The running sum over all rays is much larger than one ray's part. In float64 the difference still has float32
    # precision.
    running = value.double().cumsum(0)
    before = torch.cat([running.new_zeros(1), running[:-1]])
    return (before - before.index_select(0, ray_starts(ray))).to(value.dtype)


def ray_starts(ray: Tensor) -> Tensor:
    """Position of the first sample of each sample's ray, (M,) integers."""
    position = torch.arange(len(ray), device=ray.device)
    first = torch.ones_like(ray, dtype=torch.bool)
    first[1:] = ray[1:] != ray[:-1]
    return torch.where(first, position, 0).cummax(0).values if len(ray) else position


class _SegmentSum(torch.autograd.Function):
    """Exclusive prefix or suffix sum within each ray; each is the other's adjoint."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ray: Tensor, suffix: bool) -> Tensor:
        ctx.save_for_backward(ray)
        ctx.suffix = suffix
        if suffix:
            return _exclusive_cumsum(value.flip(0), ray.flip(0)).flip(0)
        return _exclusive_cumsum(value, ray)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (ray,) = ctx.saved_tensors
        return _SegmentSum.apply(grads[0], ray, not ctx.suffix), None, None


def optical_depth_before(optical_depth: Tensor, ray: Tensor) -> Tensor:
    """Optical depth between the start of the ray and each sample, sum_{j < i} tau_j.

    Args:
        optical_depth: (M,) tau = density · step of each sample, >= 0.
        ray: (M,) index of each sample's ray, non-decreasing.

    Returns:
        (M,), differentiable to any order.
    """
    return _SegmentSum.apply(optical_depth, ray, False)


def render_weights(density: Tensor, step: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each sample in its ray's color, and the share of light that reaches it.

    Args:
        density: (M,) >= 0, per world unit.
        step: (M,) length of the ray segment that each sample represents, in world units.
        ray: (M,) index of each sample's ray, non-decreasing.

    Returns:
        weights w and transmittance T, (M,) each, differentiable in density and step.
    """
    tau = density * step
    transmittance = torch.exp(-optical_depth_before(tau, ray))
    return transmittance * -torch.expm1(-tau), transmittance


def accumulate(weights: Tensor, ray: Tensor, rays: int, values: Tensor | None = None) -> Tensor:
    """sum_i w_i v_i over each ray's samples: color, depth or normals, or the opacity without values.

    Args:
        weights: (M,) from `render_weights`.
        ray: (M,) index of each sample's ray.
        rays: number of rays.
        values: (M, C), or None for v = 1.

    Returns:
        (rays, C), or (rays,) without values; 0 for a ray without samples.
    """
    weighted = weights if values is None else weights[:, None] * values
    return weighted.new_zeros((rays, *weighted.shape[1:])).index_add(0, ray, weighted)
