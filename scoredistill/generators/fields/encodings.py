"""Encodings of points in space: frequencies, a dense grid, a multi-resolution hash grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import exp, log, pi

import torch
from torch import Tensor, nn

from scoredistill.generators.fields.interpolation import CORNERS, corners, weighted_gather
from scoredistill.ranges import require


class Encoding(nn.Module, ABC):
    """Features of points, one scene per particle. A subclass implements `forward` and states `features`.

    The constructor takes settings only; NeRF copies the encoding and calls `allocate` once it knows the number of
    particles. Every parameter and buffer made there has a leading particle axis.
    """

    features: int
    """Number of features F of a point."""

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """Create the parameters of n particles; encodings without any leave it out.

        Args:
            particles: n >= 1.
            rng: CPU generator for initial values.
        """
        del particles, rng

    @abstractmethod
    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        """Encode points.

        Args:
            points: (P, 3) in [-1, 1]^3, sorted by particle.
            particle: (P,) non-decreasing index of the particle that each point belongs to.

        Returns:
            (P, F), differentiable in the parameters and the points.
        """


class DenseGrid(Encoding):
    """Trilinear interpolation of a voxel grid per particle: the fastest encoding on a CPU.

    "Direct Voxel Grid Optimization: Super-fast Convergence for Radiance Fields Reconstruction" (2021),
    arXiv:2111.11215. With 4 channels and no head, the features are the density's pre-activation and the logits of the
    color themselves. Piecewise linear: second derivatives by position exist only between different axes.

    Args:
        resolution: vertices along each axis, >= 2; the outermost lie on the faces of [-1, 1]^3.
        channels: features of a vertex, >= 1.
        std: standard deviation of the initial values, >= 0.
    """

    def __init__(self, resolution: int = 64, channels: int = 4, std: float = 0.0) -> None:
        require(">= 2", resolution=resolution)
        require(">= 1", channels=channels)
        require(">= 0", std=std)
        super().__init__()
        self.resolution, self.features, self.std = resolution, channels, std

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        r = self.resolution
        self.grid = nn.Parameter(self.std * torch.randn(particles, r, r, r, self.features, generator=rng))

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        r = self.resolution
        cell, weight = corners(points, r)
        x, y, z = cell
        lowest = ((particle.to(cell.dtype) * r + x) * r + y) * r + z
        offsets = torch.tensor([(i * r + j) * r + k for i, j, k in CORNERS], dtype=cell.dtype, device=cell.device)
        return weighted_gather(self.grid.flatten(0, 3), lowest + offsets[:, None], weight)


class Frequency(Encoding):
    """The point itself, and the sine and cosine of its coordinates at frequencies pi, 2 pi, 4 pi, ...

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934, equation 4.
    It has no parameters, so it needs a head.

    Args:
        octaves: number of frequencies, >= 0.
    """

    def __init__(self, octaves: int = 6) -> None:
        require(">= 0", octaves=octaves)
        super().__init__()
        self.octaves, self.features = octaves, 3 + 6 * octaves

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        frequency = pi * 2 ** torch.arange(self.octaves, dtype=points.dtype, device=points.device)
        phase = (points[:, :, None] * frequency).flatten(1)
        return torch.cat([points, phase.sin(), phase.cos()], dim=1)


_PRIMES = (1, 2654435761, 805459861)


class HashGrid(Encoding):
    """Trilinear interpolation in lattices of growing resolution whose vertices share hash tables.

    "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), arXiv:2201.05989. A level whose
    lattice fits its table is stored vertex by vertex, without hashing. Derivatives by the table and by the position
    exist to any order; the encoding is piecewise linear, so second derivatives by position exist only between
    different axes, and none exists on a cell's faces.

    Args:
        levels: number of lattices, >= 1.
        channels: features of a level, >= 1; F = levels · channels.
        log2_size: base-2 logarithm of the most entries of a level's table, in [0, 40].
        base: vertices along each axis of the coarsest level, >= 2.
        finest: vertices along each axis of the finest level, >= 2, not below `base`; the others grow geometrically.
    """

    def __init__(
        self, levels: int = 16, channels: int = 2, log2_size: int = 19, base: int = 16, finest: int = 2048
    ) -> None:
        require(">= 1", levels=levels, channels=channels)
        require("[0, 40]", log2_size=log2_size)
        require(">= 2", base=base, finest=finest)
        super().__init__()
        if finest < base:
            raise ValueError(f"finest must not be below base, got {finest} and {base}")
        growth = log(finest / base) / max(levels - 1, 1)
        self.resolutions = tuple(int(base * exp(growth * level) + 1e-6) for level in range(levels))
        self.entries = tuple(min(2**log2_size, r**3) for r in self.resolutions)
        self.channels, self.features = channels, levels * channels

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        # A parameter for each level, so that the gradient of a level is all that its backward pass has to fill.
        self.tables = nn.ParameterList(
            1e-4 * (2 * torch.rand(particles, entries, self.channels, generator=rng) - 1) for entries in self.entries
        )

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        levels = zip(self.resolutions, self.entries, self.tables, strict=True)
        return torch.cat([_level(table, points, particle, r, entries) for r, entries, table in levels], dim=1)


def _level(table: Tensor, points: Tensor, particle: Tensor, resolution: int, entries: int) -> Tensor:
    # Indices and weights, 64 bytes a point and level, are kept for the backward pass: to work them out again would
    # cost a third of all the time. NeRF's `chunk` bounds the memory.
    cell, weight = corners(points, resolution)
    index = hashed(cell, resolution, entries)
    if len(table) > 1:
        index = index + (particle * entries).to(index.dtype)
    return weighted_gather(table.flatten(0, 1), index, weight)


def hashed(cell: Tensor, resolution: int, entries: int) -> Tensor:
    """Table entries of the corners of cells.

    Args:
        cell: (3, P) int32 lowest corners.
        resolution: vertices along each axis.
        entries: size of the table: resolution^3, or a power of two.

    Returns:
        (8, P) integers in [0, entries), in the order of `CORNERS`.
    """
    if entries == resolution**3:
        offsets = [(i * resolution + j) * resolution + k for i, j, k in CORNERS]
        x, y, z = cell
        return ((x * resolution + y) * resolution + z) + cell.new_tensor(offsets)[:, None]
    # Only the low bits are read, and those of an int32 product that overflows are right: both primes' low halves do.
    primes = torch.tensor([p - 2**32 if p >= 2**31 else p for p in _PRIMES], dtype=torch.int32, device=cell.device)
    low = cell * primes[:, None]
    x, y, z = torch.stack([low, low + primes[:, None]], dim=1)
    return ((x[:, None] ^ y)[:, :, None] ^ z).flatten(0, 2).bitwise_and_(entries - 1)
