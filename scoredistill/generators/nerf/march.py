"""From samples to pixels: the field is evaluated and composited, a block of rays at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.sampling import Block, RaySampler, RaySamples
from scoredistill.rendering.picture import composite_over
from scoredistill.rendering.volume import accumulate, render_weights


def all_sums(found: March, block: Block) -> Tensors:
    """Per ray of a block, weighted by opacity: color (n, R, C), opacity, distance (n, R) and normals (n, R, 3)."""
    assert found.normals is not None
    normals = accumulate(found.weights, found.row, len(found.opacity), found.normals)
    sums = (found.color, found.opacity, found.distance, normals)
    return tuple(x.unflatten(0, (-1, block.last - block.first)) for x in sums)


def channels(sums: Sequence[Tensor], background_color: Tensor) -> Tensor:
    """Color over a background, opacity, depth and normals of one view.

    Args:
        sums: of `all_sums`, of all the view's rays.
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
    """What was found along n · R rays of n particles; particle-major, R rays each.

    Args:
        samples: the M samples that were evaluated.
        row: (M,) index of a sample's ray among all n · R.
        directions: (R, 3) unit directions of the rays.
        density: (M,) per world unit.
        weights: (M,) share in the ray's color.
        normals: (M, 3) outward unit normals, if they were asked for.
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
    """Evaluate and composite.

    Args:
        field: density and color.
        samples: M samples.
        directions: (R, 3).
        particles: n.
        normals: whether to work them out.
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
    field: Field, sampler: RaySampler, chunk: int, normals: bool, look: Callable[[March, Block], Tensors]
) -> list[Tensors]:
    """March all rays, block by block in bounded memory.

    Where gradients are needed, every block but the last is marched again in the backward pass instead of being kept.
    Until then neither the parameters nor the occupancy may change.

    Args:
        field: density and color.
        sampler: of the rays.
        chunk: most samples of a block.
        normals: whether to work them out.
        look: what is wanted of a block.

    Returns:
        what `look` made of each block, block by block for each of its tensors.
    """

    def seen(block: Block) -> Tensors:
        return look(march(field, block.samples(), block.directions, sampler.particles, normals), block)

    def seen_again(block: Block) -> Tensors:
        return checkpoint(seen, block, use_reentrant=False, preserve_rng_state=False)

    graph = torch.is_grad_enabled()
    # The backward pass begins with the last block and has let go of it when it comes to the others.
    found = [(seen_again if graph and not block.final else seen)(block) for block in sampler.blocks(chunk)]
    return list(zip(*found, strict=True))
