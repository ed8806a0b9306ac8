"""From samples to pixels: the field evaluated in chunks, then composited."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.sampling import RaySamples
from scoredistill.rendering.volume import accumulate, render_weights


@dataclass(frozen=True)
class March:
    """What was found along n · R rays of n particles; particle-major, R rays each.

    Args:
        samples: the M samples that were evaluated.
        row: (M,) index of a sample's ray among all n · R.
        directions: (R, 3) unit directions of the rays.
        density: (M,) per world unit.
        weights: (M,) share in the ray's colour.
        normals: (M, 3) outward unit normals, if they were asked for.
        colour: (n R, 3) sum of w · colour, colour in [-1, 1].
        opacity: (n R,) sum of w, in [0, 1].
        distance: (n R,) sum of w · distance.
    """

    samples: RaySamples
    row: Tensor
    directions: Tensor
    density: Tensor
    weights: Tensor
    normals: Tensor | None
    colour: Tensor
    opacity: Tensor
    distance: Tensor


def march(
    field: Field, samples: RaySamples, directions: Tensor, particles: int, chunk: int, normals: bool = False
) -> March:
    """Evaluate and composite.

    Args:
        field: density and colour.
        samples: M samples.
        directions: (R, 3).
        particles: n.
        chunk: most samples given to the field at once. Where gradients are needed and there are more, each chunk is
            evaluated again in the backward pass instead of being kept.
        normals: whether to work them out.
    """
    density, colour, normal = _evaluate(field, samples, chunk, normals)
    rays = len(directions)
    row = samples.particle * rays + samples.ray
    weights, _ = render_weights(density, samples.step, row)
    values = torch.cat([2 * colour - 1, torch.ones_like(density)[:, None], samples.distance[:, None]], dim=1)
    sums = accumulate(weights, row, particles * rays, values)
    return March(samples, row, directions, density, weights, normal, sums[:, :3], sums[:, 3], sums[:, 4])


def _evaluate(field: Field, samples: RaySamples, chunk: int, normals: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    call = field.with_normals if normals else field
    pieces = list(zip(samples.points.split(chunk), samples.particle.split(chunk), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        found = [call(*piece) for piece in pieces]
    else:
        found = [checkpoint(call, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    density, colour, *rest = (torch.cat(parts) for parts in zip(*found, strict=True))
    return density, colour, rest[0] if rest else None
