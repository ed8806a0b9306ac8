"""Which points of which rays are evaluated: stratified in distance, empty and hidden ones left out."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.rendering.volume import optical_depth_before

_CANDIDATES = 2**20
"""Most samples looked up in the occupancy grid at once: bounds memory, costs no time."""


@dataclass(frozen=True)
class Rays:
    """R rays, which every particle is seen along.

    Args:
        origins: (R, 3).
        directions: (R, 3) of unit length.
    """

    origins: Tensor
    directions: Tensor

    def within(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (R,) and (R,) at which rays enter and leave a box; where they miss, the first is the larger."""
        # A direction of exactly 0 gives an infinity of the right sign; 0/0 on a face is neither hit nor missed.
        inverse = 1 / self.directions
        a, b = (lowest - self.origins) * inverse, (highest - self.origins) * inverse
        near = torch.minimum(a, b).nan_to_num(nan=-torch.inf).amax(1).clamp(min=0)
        return near, torch.maximum(a, b).nan_to_num(nan=torch.inf).amin(1)


@dataclass(frozen=True)
class RaySamples:
    """M samples to be evaluated, sorted by particle, then ray, then distance.

    Args:
        points: (M, 3).
        particle: (M,).
        ray: (M,) index of the ray among the R that every particle is seen along.
        distance: (M,) from the ray's origin.
        step: (M,) length of ray that a sample stands for.
    """

    points: Tensor
    particle: Tensor
    ray: Tensor
    distance: Tensor
    step: Tensor


def sample_rays(
    rays: Rays, particles: int, samples: int, occupancy: Occupancy | None, rng: torch.Generator | None
) -> RaySamples:
    """One sample in each of `samples` equal parts of a ray's way through [-1, 1]^3, at the same place in all of them.

    The offset is drawn per ray; it is the same for all particles and does not depend on what is skipped.

    Args:
        rays: R rays.
        particles: n.
        samples: parts of each ray.
        occupancy: what to skip; None: nothing.
        rng: CPU generator of the offsets; None: the middle.

    Returns:
        at most n · R · samples of them, possibly none.
    """
    one = torch.ones(3, dtype=rays.origins.dtype, device=rays.origins.device)
    near, far = rays.within(-one, one)
    offset = torch.full_like(near, 0.5) if rng is None else torch.rand(len(near), generator=rng).to(near)
    step = (far - near) / samples
    start = near + offset * step
    hit = far > near
    if occupancy is not None:
        enter, leave = rays.within(*occupancy.bounds())
        hit &= leave > enter
    blocks = hit.nonzero().flatten().split(max(1, _CANDIDATES // samples))
    found = [_occupied(rays, block, start, step, particles, samples, occupancy) for block in blocks]
    particle, ray, distance = (torch.cat(parts) for parts in zip(*found, strict=True))
    if len(blocks) > 1:
        order = particle.argsort(stable=True)
        particle, ray, distance = particle[order], ray[order], distance[order]
    points = torch.addcmul(
        rays.origins.index_select(0, ray), rays.directions.index_select(0, ray), distance[:, None]
    ).clamp(-1, 1)
    return RaySamples(points, particle, ray, distance, step.index_select(0, ray))


def _occupied(
    rays: Rays, block: Tensor, start: Tensor, step: Tensor, particles: int, samples: int, occupancy: Occupancy | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Particle, ray and distance of the samples of a block of rays that have to be evaluated."""
    part = torch.arange(samples, device=block.device, dtype=start.dtype)
    distance = torch.addcmul(start[block, None], step[block, None], part)
    if occupancy is None:
        particle = torch.arange(particles, device=block.device).repeat_interleave(distance.numel())
        ray = block.repeat_interleave(samples).repeat(particles)
        return particle, ray, distance.flatten().repeat(particles)
    cell = _cells(rays, block, distance, occupancy.resolution)
    anywhere = occupancy.occupied.any(0).index_select(0, cell).nonzero().flatten()
    cell = cell.index_select(0, anywhere)
    ray = block.index_select(0, anywhere.div(samples, rounding_mode="floor"))
    distance = distance.flatten().index_select(0, anywhere)
    particle, which = occupancy.occupied.index_select(1, cell).nonzero(as_tuple=True)
    cell, ray, distance = (x.index_select(0, which) for x in (cell, ray, distance))
    lower = occupancy.lower.flatten().index_select(0, particle * occupancy.lower.shape[1] + cell)
    depth = lower * step.index_select(0, ray)
    seen = optical_depth_before(depth, particle * len(start) + ray) < -log(occupancy.transmittance)
    seen = seen.nonzero().flatten()
    return particle.index_select(0, seen), ray.index_select(0, seen), distance.index_select(0, seen)


def _cells(rays: Rays, block: Tensor, distance: Tensor, resolution: int) -> Tensor:
    """Index of the occupancy cell of each point of a block's rays, (len(block) · samples,)."""
    origin = (rays.origins[block] + 1) * (resolution / 2)
    direction = rays.directions[block] * (resolution / 2)
    index: Tensor | None = None
    for o, d in zip(origin.unbind(1), direction.unbind(1), strict=True):
        along = torch.addcmul(o[:, None], d[:, None], distance).int().clamp_(0, resolution - 1)
        index = along if index is None else index.mul_(resolution).add_(along)
    assert index is not None
    return index.flatten()
