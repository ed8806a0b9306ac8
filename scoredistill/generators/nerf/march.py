"""From samples to pixels: evaluate and composite the field, one block of rays at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.ray_sampling import Block, RaySampler, RaySamples
from scoredistill.rendering.camera import composite_over
from scoredistill.rendering.volume import accumulate, render_weights


def all_sums(result: March, block: Block) -> Tensors:
    """Color (n, R, C), opacity (n, R), distance (n, R) and normals (n, R, 3) of a block's rays, weighted by opacity."""
    assert result.normals is not None
    normals = accumulate(result.weights, result.row, len(result.opacity), result.normals)
    sums = (result.color, result.opacity, result.distance, normals)
    return tuple(x.unflatten(0, (-1, block.last - block.first)) for x in sums)


def channels(sums: Sequence[Tensor], background_color: Tensor) -> Tensor:
    """Color over a background, opacity, depth and normals of one view.

    Args:
        sums: result of `all_sums` for all rays of the view.
        background_color: (n, 1, 1 or R, C).

    Returns:
        (n, R, C + 5), the channels in that order.
    """
    color, opacity, distance, normals = sums
    opacity = opacity[..., None]
    shape = torch.cat([distance[..., None] / opacity.clamp(min=0.1), normalize(normals, dim=-1)], dim=-1)
    return torch.cat(
        [composite_over(color, opacity, background_color)[:, 0], opacity, torch.where(opacity < 0.1, 0, shape)], dim=-1
    )


Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class March:
    """The result of marching R rays for each of n particles; rays are particle-major.

    Args:
        samples: the M evaluated samples.
        row: (M,) index of a sample's ray among all n · R.
        directions: (R, 3) unit directions of the rays.
        density: (M,) per world unit.
        weights: (M,) share of each sample in its ray's color.
        normals: (M, 3) outward unit normals, or None if they were not requested.
        color: (n R, C) sum of w · color, colors in [-1, 1] or latents.
        opacity: (n R,) sum of w, in [0, 1].
        distance: (n R,) sum of w · distance.
    """

    samples: RaySamples
    row: Tensor
    directions: Tensor
    density: Tensor
    weights: Tensor
    normals: Tensor | None
    color: Tensor
    opacity: Tensor
    distance: Tensor


def march(field: Field, samples: RaySamples, directions: Tensor, particles: int, normals: bool = False) -> March:
    """Evaluate the field at samples and composite them along their rays.

    Args:
        field: density and color.
        samples: M samples.
        directions: (R, 3).
        particles: n.
        normals: whether to compute normals.
    """
    density, color, *rest = (field.with_normals if normals else field)(samples.points, samples.particle)
    rays = len(directions)
    row = samples.particle * rays + samples.ray
    weights, _ = render_weights(density, samples.step, row)
    values = torch.cat([color, torch.ones_like(density)[:, None], samples.distance[:, None]], dim=1)
    sums = accumulate(weights, row, particles * rays, values)
    normal = rest[0] if rest else None
    return March(samples, row, directions, density, weights, normal, sums[:, :-2], sums[:, -2], sums[:, -1])


def march_in_blocks(
    field: Field, sampler: RaySampler, chunk: int, normals: bool, reduce: Callable[[March, Block], Tensors]
) -> list[Tensors]:
    """March all rays, block by block in bounded memory.

    With gradients, every block except the last is recomputed in the backward pass. Neither the parameters nor the
    occupancy may change before that.

    Args:
        field: density and color.
        sampler: the rays.
        chunk: maximum number of samples in a block.
        normals: whether to compute normals.
        reduce: computes the tensors to keep of a block.

    Returns:
        for each tensor that `reduce` returns, its values for all blocks.
    """

    def evaluate(block: Block) -> Tensors:
        return reduce(march(field, block.samples(), block.directions, sampler.particles, normals), block)

    def evaluate_checkpointed(block: Block) -> Tensors:
        return checkpoint(evaluate, block, use_reentrant=False, preserve_rng_state=False)

    graph = torch.is_grad_enabled()
    # The backward pass starts with the last block and frees it before the others are recomputed.
    results = [
        (evaluate_checkpointed if graph and not block.final else evaluate)(block) for block in sampler.blocks(chunk)
    ]
    return list(zip(*results, strict=True))
