"""Multiresolution hash encoding."""

from __future__ import annotations

from math import exp, log

import torch
from torch import Tensor, nn

from scoredistill.generators.nerf.encodings import Encoding
from scoredistill.generators.nerf.interpolation import CORNERS, corners, weighted_gather
from scoredistill.ranges import require

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
