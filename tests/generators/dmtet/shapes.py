"""Surfaces with known geometry."""

from math import pi

import torch
from torch import Tensor

from scoredistill.generators.dmtet.grid import Grid
from scoredistill.rendering.mesh import Mesh


def lattice(cells: int) -> tuple[Tensor, ...]:
    axis = torch.linspace(-1, 1, cells + 1)
    return torch.meshgrid(axis, axis, axis, indexing="ij")


def sphere(cells: int, radius: float = 0.6) -> Tensor:
    return torch.stack(lattice(cells)).norm(dim=0) - radius


def torus(cells: int, major: float = 0.55, minor: float = 0.25) -> Tensor:
    x, y, z = lattice(cells)
    return torch.hypot(torch.hypot(x, z) - major, y) - minor


SHAPES = {"sphere": (sphere, 2, 4 / 3 * pi * 0.6**3), "torus": (torus, 0, 2 * pi**2 * 0.55 * 0.25**2)}
"""Signed distance, Euler characteristic, volume."""


def volume(mesh: Mesh) -> float:
    corners = mesh.vertices[mesh.faces].double()
    return float((corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6)


def shifted(distance: Tensor, size: float = 1.0, seed: int = 0) -> Grid:
    """A grid (n, A, A, A) whose points are shifted at random, by about `size` before the tanh."""
    grid = Grid(distance, 0.16)
    with torch.no_grad():
        grid.raw.copy_(size * torch.randn(grid.raw.shape, generator=torch.Generator().manual_seed(seed)))
    return grid
