"""Encodings of points: frequencies, a dense grid and a multi-resolution hash grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import exp, log, pi

import torch
from torch import Tensor, nn

from scoredistill.generators.fields.interpolation import CORNERS, corners, weighted_gather
from scoredistill.ranges import require


class Encoding(nn.Module, ABC):
    """Features of points, one scene per particle. A subclass implements `forward` and defines `features`.

    The constructor only takes settings. The generator copies the encoding and calls `allocate` with the number of
    particles. Each parameter and buffer that `allocate` creates has a leading particle axis.
    """

    features: int
    """Number of features F of a point."""

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """Create the parameters of n particles. Encodings without parameters need not implement it.

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
            particle: (P,) index of each point's particle, non-decreasing.

        Returns:
            (P, F), differentiable in the parameters and the points.
        """


class DenseGrid(Encoding):
    """Trilinear interpolation of a voxel grid per particle: the fastest encoding on a CPU.

    "Direct Voxel Grid Optimization: Super-fast Convergence for Radiance Fields Reconstruction" (2021),
    arXiv:2111.11215. With 4 channels and `DirectHead`, the features are the density's pre-activation and the color's
    logits. The encoding is piecewise linear: second derivatives by position exist only between different axes.

    Args:
        resolution: vertices along each axis, >= 2; the outermost are on the faces of [-1, 1]^3.
        channels: features per vertex, >= 1.
        std: standard deviation of the initial values, >= 0.
    """

    def __init__(self, resolution: int = 64, channels: int = 4, std: float = 0.0) -> None:
        require(">= 2", resolution=resolution)
        require(">= 1", channels=channels)
        require(">= 0", std=std)
        super().__init__()
        self.resolution = resolution
        self.features = channels
        self.std = std

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
    """The point's coordinates, and their sine and cosine at frequencies pi, 2 pi, 4 pi, ...

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934, equation 4.
    The encoding has no parameters, so it needs a head with parameters.

    Args:
        octaves: number of frequencies, >= 0.
    """

    def __init__(self, octaves: int = 6) -> None:
        require(">= 0", octaves=octaves)
        super().__init__()
        self.octaves = octaves
        self.features = 3 + 6 * octaves

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        frequency = pi * 2 ** torch.arange(self.octaves, dtype=points.dtype, device=points.device)
        phase = (points[:, :, None] * frequency).flatten(1)
        return torch.cat([points, phase.sin(), phase.cos()], dim=1)


_PRIMES = (1, 2654435761, 805459861)


class HashGrid(Encoding):
    """Trilinear interpolation in lattices of growing resolution whose vertices share hash tables.

    "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), arXiv:2201.05989. A level whose
    lattice fits into its table is stored vertex by vertex, without hashing. Derivatives by the table and by the
    position exist to any order; the encoding is piecewise linear, so second derivatives by position exist only between
    different axes, and none exists on a cell's faces.

    Args:
        levels: number of lattices, >= 1.
        channels: features per level, >= 1; F = levels · channels.
        log2_size: base-2 logarithm of the maximum number of entries in a level's table, in [0, 40].
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
            raise ValueError(f"finest must be at least base, got {finest} and {base}")
        growth = log(finest / base) / max(levels - 1, 1)
        self.resolutions = tuple(int(base * exp(growth * level) + 1e-6) for level in range(levels))
        self.entries = tuple(min(2**log2_size, r**3) for r in self.resolutions)
        self.channels = channels
        self.features = levels * channels

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        # One parameter per level, so that a level's backward pass allocates a gradient of that level only.
        self.tables = nn.ParameterList(
            1e-4 * (2 * torch.rand(particles, entries, self.channels, generator=rng) - 1) for entries in self.entries
        )

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        levels = zip(self.resolutions, self.entries, self.tables, strict=True)
        return torch.cat([_level(table, points, particle, r, entries) for r, entries, table in levels], dim=1)


def _level(table: Tensor, points: Tensor, particle: Tensor, resolution: int, entries: int) -> Tensor:
    # Indices and weights, 64 bytes per point and level, are stored for the backward pass: recomputing them would take a
    # third of the total time. NeRF's `chunk` bounds the memory.
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
        entries: size of the table, resolution^3 or a power of two.

    Returns:
        (8, P) integers in [0, entries), in the order of `CORNERS`.
    """
    if entries == resolution**3:
        offsets = [(i * resolution + j) * resolution + k for i, j, k in CORNERS]
        x, y, z = cell
        return ((x * resolution + y) * resolution + z) + cell.new_tensor(offsets)[:, None]
    # Only the low bits are used, and these are correct in an int32 product that overflows.
    primes = torch.tensor([p - 2**32 if p >= 2**31 else p for p in _PRIMES], dtype=torch.int32, device=cell.device)
    low = cell * primes[:, None]
    x, y, z = torch.stack([low, low + primes[:, None]], dim=1)
    return ((x[:, None] ^ y)[:, :, None] ^ z).flatten(0, 2).bitwise_and_(entries - 1)
