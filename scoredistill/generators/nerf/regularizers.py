"""Regularizers of NeRFs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scoredistill.annealing import Annealed
from scoredistill.generators.fields.encodings import DenseGrid
from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.march import March
from scoredistill.ranges import require


class Regularizer(ABC):
    """A scalar penalty, averaged over all rays of all particles. A subclass implements `__call__`.

    Many rays are marched in blocks. The penalty is then the mean over the blocks, weighted by `count`.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    needs_rays = True
    """Whether the penalty depends on the march; if not, it is computed for the first block only."""

    needs_normals = False
    """Whether the penalty needs `March.normals`."""

    def __init__(self, weight: Annealed = 1.0) -> None:
        require(">= 0", weight=weight)
        self.weight = weight

    @abstractmethod
    def __call__(self, march: March, field: Field) -> Tensor:
        """The penalty, without its weight.

        Args:
            march: the result for this step's rays, or for a block of them.
            field: density and color, for penalties on the parameters.
        """

    def count(self, march: March) -> Tensor:
        """Number of rays that the penalty is averaged over, a scalar; by default all rays."""
        return march.opacity.new_tensor(len(march.opacity))


class Sparsity(Regularizer):
    """Penalizes opaque rays: the mean of sqrt(opacity^2 + .01).

    "DreamFusion: Text-to-3D using 2D Diffusion" (2022), arXiv:2209.14988, appendix.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, march: March, field: Field) -> Tensor:
        return (march.opacity.square() + 0.01).sqrt().mean()


class Opacity(Regularizer):
    """Penalizes opaque rays: the mean of opacity^2.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, march: March, field: Field) -> Tensor:
        return march.opacity.square().mean()


class Entropy(Regularizer):
    """Penalizes semi-transparent rays: the mean binary entropy of the opacity in nats, at most log 2 (at one half).

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, march: March, field: Field) -> Tensor:
        o = march.opacity.clamp(1e-5, 1 - 1e-5)
        return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


class Emptiness(Regularizer):
    """Penalizes matter that is spread along a ray: the mean over rays of sum_i log(1 + scale · w_i).

    "Score Jacobian Chaining: Lifting Pretrained 2D Diffusion Models for 3D Generation" (2022), arXiv:2212.00774, which
    averages over a ray's samples too: the weight here is the published weight over the number of samples.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
        scale: beta, > 0.
    """

    def __init__(self, weight: Annealed = 1.0, scale: float = 10.0) -> None:
        require(">= 0", weight=weight)
        require("> 0", scale=scale)
        super().__init__(weight)
        self.scale = scale

    def __call__(self, march: March, field: Field) -> Tensor:
        return (self.scale * march.weights).log1p().sum() / len(march.opacity)


class Orientation(Regularizer):
    """Penalizes visible surfaces that face away from the camera: the mean over rays of sum_i w_i max(0, n_i · d)^2,
    without gradient through w.

    "Ref-NeRF: Structured View-Dependent Appearance for Neural Radiance Fields" (2021), arXiv:2112.03907, equation 11.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    needs_normals = True

    def __call__(self, march: March, field: Field) -> Tensor:
        if march.normals is None:
            raise ValueError("Orientation needs a march with normals")
        away = (march.normals * march.directions.index_select(0, march.samples.ray)).sum(1).clamp(min=0)
        return (march.weights.detach() * away.square()).sum() / len(march.opacity)


class ZVariance(Regularizer):
    """Penalizes thick surfaces: the variance of the distance along a ray, averaged over rays of opacity above one half.

    With `plan.accumulate` the mean is over the rays of each micro-batch.

    "HiFA: High-fidelity Text-to-3D Generation with Advanced Diffusion Guidance" (2023), arXiv:2305.18766.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, march: March, field: Field) -> Tensor:
        hit = march.opacity > 0.5
        mean = march.distance / march.opacity.clamp(min=0.5)
        share = march.weights / march.opacity.clamp(min=0.5)[march.row]
        spread = share * (march.samples.distance - mean[march.row]).square()
        return spread[hit[march.row]].sum() / self.count(march).clamp(min=1)

    def count(self, march: March) -> Tensor:
        return (march.opacity > 0.5).sum().to(march.opacity)


class TotalVariation(Regularizer):
    """Penalizes differences between neighboring vertices of a `DenseGrid`: the mean squared difference, summed over
    the three axes. It is not twice differentiable.

    "Direct Voxel Grid Optimization" (2021), arXiv:2111.11215.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    needs_rays = False

    def __call__(self, march: March, field: Field) -> Tensor:
        if not isinstance(field.encoding, DenseGrid):
            raise ValueError(f"TotalVariation needs a DenseGrid encoding, got {type(field.encoding).__name__}")
        return _SquaredSlopes.apply(field.encoding.grid)


def penalties_and_counts(regularizers: Sequence[Regularizer], march: March, field: Field, first: bool) -> Tensor:
    """Each regularizer's penalty on a block of rays, times its count, and the count.

    Args:
        regularizers: P regularizers.
        march: the result for the block.
        field: density and color.
        first: whether the block is the first one.

    Returns:
        (P, 2), which the caller sums over blocks.
    """
    rows = []
    for regularizer in regularizers:
        if regularizer.needs_rays:
            count = regularizer.count(march)
            rows.append(torch.stack([count * regularizer(march, field), count]))
        elif first:
            penalty = regularizer(march, field)
            rows.append(torch.stack([penalty, torch.ones_like(penalty)]))
        else:
            rows.append(march.opacity.new_zeros(2))
    return torch.stack(rows) if rows else march.opacity.new_zeros(0, 2)


class _SquaredSlopes(torch.autograd.Function):
    """Sum over axes of the mean squared difference of neighbors. The forward pass also computes the gradient, which is
    four times as fast.
    """

    @staticmethod
    def forward(ctx: Any, grid: Tensor) -> Tensor:
        gradient = torch.zeros_like(grid)
        total = grid.new_zeros(())
        for axis in (1, 2, 3):
            length = grid.shape[axis] - 1
            difference = grid.diff(dim=axis)
            total += difference.square().mean()
            difference *= 2 / difference.numel()
            gradient.narrow(axis, 1, length).add_(difference)
            gradient.narrow(axis, 0, length).sub_(difference)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient
