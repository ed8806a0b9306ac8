"""Which points of which rays are evaluated: stratified in distance, empty and hidden ones left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.rendering.volume import optical_depth_before

_CANDIDATES = 2**20
"""Most samples looked up in the occupancy grid at once: bounds memory, costs no time."""

_Found = tuple[Tensor, Tensor, Tensor]
"""Particle, ray and distance of samples, sorted by particle, then ray, then distance."""


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
        ray: (M,) index of the ray among those that are marched together.
        distance: (M,) from the ray's origin.
        step: (M,) length of ray that a sample stands for.
    """

    points: Tensor
    particle: Tensor
    ray: Tensor
    distance: Tensor
    step: Tensor


class RaySampler:
    """One sample in each of `samples` equal parts of a ray's way through [-1, 1]^3, at the same place in all of them.

    A ray's offset is the same for all particles and depends neither on what is skipped nor on the size of a block.

    Args:
        rays: R rays.
        particles: n.
        samples: parts of each ray.
        occupancy: what to skip; None: nothing.
        offset: (R,) where in its part each ray's samples lie, in [0, 1]; None: in the middle.
    """

    @torch.no_grad()
    def __init__(
        self, rays: Rays, particles: int, samples: int, occupancy: Occupancy | None, offset: Tensor | None = None
    ) -> None:
        self.rays, self.particles, self.samples, self.occupancy = rays, particles, samples, occupancy
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
        """All rays in order, in blocks of at most `chunk` samples of all particles together, or of one ray.

        Args:
            chunk: most samples of a block, and most that are looked up in the occupancy grid at once.
        """
        hits = len(self._hit)
        at_once = max(1, min(chunk // self.particles, _CANDIDATES) // self.samples)
        first, begin, held, parts = 0, 0, 0, list[_Found]()
        for i in range(0, hits, at_once):
            found = self._found(i, min(i + at_once, hits))
            if parts and held + len(found[0]) > chunk:
                last = int(self._hit[i])
                yield Block(self, first, last, (begin, i, at_once), parts)
                first, begin, held, parts = last, i, 0, []
            parts.append(found)
            held += len(found[0])
        yield Block(self, first, len(self.start), (begin, hits, at_once), parts)

    def again(self, begin: int, end: int, at_once: int) -> list[_Found]:
        """What `blocks` found for hits begin to end, found anew."""
        return [self._found(i, min(i + at_once, end)) for i in range(begin, end, at_once)]

    @torch.no_grad()
    def at(self, parts: Sequence[_Found], first: int) -> RaySamples:
        """Samples from the parts of a block, whose rays are counted from its first."""
        particle, ray, distance = _joined(parts, self.particles, self.start)
        origins, directions = (x.index_select(0, ray) for x in (self.rays.origins, self.rays.directions))
        points = torch.addcmul(origins, directions, distance[:, None]).clamp(-1, 1)
        return RaySamples(points, particle, ray - first, distance, self.step.index_select(0, ray))

    @torch.no_grad()
    def _found(self, begin: int, end: int) -> _Found:
        block = self._hit[begin:end]
        part = torch.arange(self.samples, device=block.device, dtype=self.start.dtype)
        distance = torch.addcmul(self.start[block, None], self.step[block, None], part)
        if self.occupancy is None:
            particle = torch.arange(self.particles, device=block.device).repeat_interleave(distance.numel())
            ray = block.repeat_interleave(self.samples).repeat(self.particles)
            return particle, ray, distance.flatten().repeat(self.particles)
        return self._occupied(self.occupancy, block, distance)

    def _occupied(self, occupancy: Occupancy, block: Tensor, distance: Tensor) -> _Found:
        """Those samples of a block of rays that lie in occupied cells and can be seen."""
        cell = _cells(self.rays, block, distance, occupancy.resolution)
        anywhere = self._anywhere.index_select(0, cell).nonzero().flatten()
        cell = cell.index_select(0, anywhere)
        ray = block.index_select(0, anywhere.div(self.samples, rounding_mode="floor"))
        distance = distance.flatten().index_select(0, anywhere)
        particle, which = occupancy.occupied.index_select(1, cell).nonzero(as_tuple=True)
        cell, ray, distance = (x.index_select(0, which) for x in (cell, ray, distance))
        lower = occupancy.lower.flatten().index_select(0, particle * occupancy.lower.shape[1] + cell)
        depth = lower * self.step.index_select(0, ray)
        seen = optical_depth_before(depth, particle * len(self.start) + ray) < -log(occupancy.transmittance)
        seen = seen.nonzero().flatten()
        return particle.index_select(0, seen), ray.index_select(0, seen), distance.index_select(0, seen)


class Block:
    """Rays first to last (exclusive), which are marched together.

    Args:
        sampler: of all rays.
        first, last: the rays, those that miss everything among them.
        hits: which of the sampler's hits they are: the first, the one after the last, and how many to sample at once.
        parts: what was found, kept until it is asked for.
    """

    def __init__(
        self, sampler: RaySampler, first: int, last: int, hits: tuple[int, int, int], parts: list[_Found]
    ) -> None:
        self.first, self.last = first, last
        self._sampler, self._hits = sampler, hits
        self._parts: list[_Found] | None = parts

    @property
    def final(self) -> bool:
        """Whether no block comes after this one."""
        return self.last == len(self._sampler.start)

    @property
    def directions(self) -> Tensor:
        """Unit directions of the block's rays, (last - first, 3)."""
        return self._sampler.rays.directions[self.first : self.last]

    def samples(self) -> RaySamples:
        """The samples, whose rays are counted from `first`. They are held for the first call only; later ones, which
        come from a backward pass, find them anew, so that memory does not grow with the number of blocks.
        """
        parts, self._parts = self._parts, None
        return self._sampler.at(self._sampler.again(*self._hits) if parts is None else parts, self.first)


def _joined(parts: Sequence[_Found], particles: int, like: Tensor) -> _Found:
    """Parts of consecutive rays as one, sorted by particle."""
    if not parts:
        nothing = torch.empty(0, dtype=torch.long, device=like.device)
        return nothing, nothing, like[:0]
    if len(parts) == 1:
        return parts[0]
    counts = [torch.bincount(part[0], minlength=particles).tolist() for part in parts]
    columns = []
    for column in zip(*parts, strict=True):
        pieces = [values.split(count) for values, count in zip(column, counts, strict=True)]
        columns.append(torch.cat([piece for particle in zip(*pieces, strict=True) for piece in particle]))
    return columns[0], columns[1], columns[2]


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
