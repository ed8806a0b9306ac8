"""Sample positions along rays: stratified in distance, without empty and hidden samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.rendering.volume import optical_depth_before

_CANDIDATES = 2**20
"""Maximum number of samples in one lookup in the occupancy grid, which bounds memory at no cost in time."""

_Samples = tuple[Tensor, Tensor, Tensor]
"""Particle, ray and distance of samples, sorted by particle, then ray, then distance."""


@dataclass(frozen=True)
class Rays:
    """R rays, which are the same for all particles.

    Args:
        origins: (R, 3).
        directions: (R, 3) of unit length.
    """

    origins: Tensor
    directions: Tensor

    def within(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Distances at which rays enter and leave a box, (R,) each. For a ray that misses, the first is larger."""
        # A direction of exactly 0 gives an infinity of the right sign; 0/0 on a face is neither a hit nor a miss.
        inverse = 1 / self.directions
        a, b = (lowest - self.origins) * inverse, (highest - self.origins) * inverse
        near = torch.minimum(a, b).nan_to_num(nan=-torch.inf).amax(1).clamp(min=0)
        return near, torch.maximum(a, b).nan_to_num(nan=torch.inf).amin(1)


@dataclass(frozen=True)
class RaySamples:
    """M samples, sorted by particle, then ray, then distance.

    Args:
        points: (M, 3).
        particle: (M,).
        ray: (M,) index of the ray in its block.
        distance: (M,) distance from the ray's origin.
        step: (M,) length of the ray segment that a sample represents.
    """

    points: Tensor
    particle: Tensor
    ray: Tensor
    distance: Tensor
    step: Tensor


class RaySampler:
    """One sample in each of `samples` equal parts of a ray's path through [-1, 1]^3, at the same offset in all parts.

    A ray's offset is the same for all particles, and depends neither on the occupancy nor on the block size.

    Args:
        rays: R rays.
        particles: n.
        samples: number of parts of each ray.
        occupancy: grid of the samples to skip; None: skip nothing.
        offset: (R,) position of each ray's samples in their parts, in [0, 1]; None: the middle.
    """

    @torch.no_grad()
    def __init__(
        self, rays: Rays, particles: int, samples: int, occupancy: Occupancy | None, offset: Tensor | None = None
    ) -> None:
        self.rays = rays
        self.particles = particles
        self.samples = samples
        self.occupancy = occupancy
        one = torch.ones(3, dtype=rays.origins.dtype, device=rays.origins.device)
        near, far = rays.within(-one, one)
        offset = torch.full_like(near, 0.5) if offset is None else offset.to(near)
        self.step = (far - near) / samples
        self.start = near + offset * self.step
        hit = far > near
        if occupancy is not None:
            enter, leave = rays.within(*occupancy.bounds())
            hit &= leave > enter
            self._anywhere = occupancy.occupied.any(0)
        self._hit = hit.nonzero().flatten()

    def blocks(self, chunk: int) -> Iterator[Block]:
        """All rays in order, in blocks of at most `chunk` samples over all particles, or of one ray.

        Args:
            chunk: maximum number of samples in a block, and in one lookup in the occupancy grid.
        """
        hits = len(self._hit)
        at_once = max(1, min(chunk // self.particles, _CANDIDATES) // self.samples)
        first, begin = 0, 0
        parts: list[_Samples] = []
        for i in range(0, hits, at_once):
            part = self._part(i, min(i + at_once, hits))
            if parts and sum(len(p[0]) for p in parts) + len(part[0]) > chunk:
                last = int(self._hit[i])
                yield Block(self, first, last, (begin, i, at_once), parts)
                first = last
                begin = i
                parts = []
            parts.append(part)
        yield Block(self, first, len(self.start), (begin, hits, at_once), parts)

    def parts(self, begin: int, end: int, at_once: int) -> list[_Samples]:
        """The samples of hits begin to end (exclusive), in the same parts as in `blocks`."""
        return [self._part(i, min(i + at_once, end)) for i in range(begin, end, at_once)]

    @torch.no_grad()
    def at(self, parts: Sequence[_Samples], first: int) -> RaySamples:
        """The samples of a block's parts, with rays counted from the block's first."""
        particle, ray, distance = _joined(parts, self.particles, self.start)
        origins, directions = (x.index_select(0, ray) for x in (self.rays.origins, self.rays.directions))
        points = torch.addcmul(origins, directions, distance[:, None]).clamp(-1, 1)
        return RaySamples(points, particle, ray - first, distance, self.step.index_select(0, ray))

    @torch.no_grad()
    def _part(self, begin: int, end: int) -> _Samples:
        block = self._hit[begin:end]
        part = torch.arange(self.samples, device=block.device, dtype=self.start.dtype)
        distance = torch.addcmul(self.start[block, None], self.step[block, None], part)
        if self.occupancy is None:
            particle = torch.arange(self.particles, device=block.device).repeat_interleave(distance.numel())
            ray = block.repeat_interleave(self.samples).repeat(self.particles)
            return particle, ray, distance.flatten().repeat(self.particles)
        return self._occupied(self.occupancy, block, distance)

    def _occupied(self, occupancy: Occupancy, block: Tensor, distance: Tensor) -> _Samples:
        """The visible samples in occupied cells of a block of rays."""
        cell = _cells(self.rays, block, distance, occupancy.resolution)
        anywhere = self._anywhere.index_select(0, cell).nonzero().flatten()
        cell = cell.index_select(0, anywhere)
        ray = block.index_select(0, anywhere.div(self.samples, rounding_mode="floor"))
        distance = distance.flatten().index_select(0, anywhere)
        particle, which = occupancy.occupied.index_select(1, cell).nonzero(as_tuple=True)
        cell, ray, distance = (x.index_select(0, which) for x in (cell, ray, distance))
        lower = occupancy.lower.flatten().index_select(0, particle * occupancy.lower.shape[1] + cell)
        depth = lower * self.step.index_select(0, ray)
        visible = optical_depth_before(depth, particle * len(self.start) + ray) < -log(occupancy.transmittance)
        visible = visible.nonzero().flatten()
        return particle.index_select(0, visible), ray.index_select(0, visible), distance.index_select(0, visible)


class Block:
    """Consecutive rays, first to last (exclusive), that are marched together.

    Args:
        sampler: the sampler of all rays.
        first, last: range of rays, including rays that miss.
        hits: the range of the sampler's hits (begin, end), and the number of hits to sample at once.
        parts: the samples, for the first call of `samples`.
    """

    def __init__(
        self, sampler: RaySampler, first: int, last: int, hits: tuple[int, int, int], parts: list[_Samples]
    ) -> None:
        self.first = first
        self.last = last
        self._sampler = sampler
        self._hits = hits
        self._parts: list[_Samples] | None = parts

    @property
    def final(self) -> bool:
        """Whether this is the last block."""
        return self.last == len(self._sampler.start)

    @property
    def directions(self) -> Tensor:
        """Unit directions of the block's rays, (last - first, 3)."""
        return self._sampler.rays.directions[self.first : self.last]

    def samples(self) -> RaySamples:
        """The samples, with rays counted from `first`.

        They are stored for the first call only. Later calls, from a backward pass, recompute them, so that memory does
        not grow with the number of blocks.
        """
        parts = self._parts
        self._parts = None
        return self._sampler.at(self._sampler.parts(*self._hits) if parts is None else parts, self.first)


def _joined(parts: Sequence[_Samples], particles: int, like: Tensor) -> _Samples:
    """Join parts of consecutive rays, sorted by particle."""
    if not parts:
        empty = torch.empty(0, dtype=torch.long, device=like.device)
        return empty, empty, like[:0]
    if len(parts) == 1:
        return parts[0]
    counts = [torch.bincount(part[0], minlength=particles).tolist() for part in parts]
    columns = []
    for column in zip(*parts, strict=True):
        pieces = [values.split(count) for values, count in zip(column, counts, strict=True)]
        columns.append(torch.cat([piece for particle in zip(*pieces, strict=True) for piece in particle]))
    return columns[0], columns[1], columns[2]


def _cells(rays: Rays, block: Tensor, distance: Tensor, resolution: int) -> Tensor:
    """Index of the occupancy cell of each sample of a block of rays, (len(block) · samples,)."""
    origin = (rays.origins[block] + 1) * (resolution / 2)
    direction = rays.directions[block] * (resolution / 2)
    index: Tensor | None = None
    for o, d in zip(origin.unbind(1), direction.unbind(1), strict=True):
        along = torch.addcmul(o[:, None], d[:, None], distance).int().clamp_(0, resolution - 1)
        index = along if index is None else index.mul_(resolution).add_(along)
    assert index is not None
    return index.flatten()
