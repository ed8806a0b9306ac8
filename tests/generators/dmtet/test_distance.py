"""Signed distances from densities: threshold, box, pieces, errors."""

from math import log

import pytest
import torch
from generators.dmtet.shapes import lattice, volume

from scoredistill.generators.dmtet.distance import occupancy_threshold, shape_of
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.surface import marching_tetrahedra
from scoredistill.rendering.mesh import Mesh, NoSurfaceError

LIKE = torch.zeros(1)


def ball(center=(0.3, -0.2, 0.1), radius: float = 0.4, inside: float = 200.0, outside: float = 0.0):
    def density(points: torch.Tensor) -> torch.Tensor:
        distance = (points - torch.tensor(center)).norm(dim=1) - radius
        return outside + (inside - outside) * torch.sigmoid(-60 * distance)

    return density


def test_the_threshold_separates_two_classes():
    values = torch.cat([torch.full((900,), 0.5), torch.full((100,), 150.0)])
    assert 1 < occupancy_threshold(values) < 100
    rng = torch.Generator().manual_seed(0)
    soft = torch.cat([0.02 * torch.rand(900, generator=rng), 2 + torch.rand(100, generator=rng)])
    assert 0.02 < occupancy_threshold(soft) < 2


def test_the_box_is_tightened_around_a_ball():
    shape = shape_of(ball(), 33, None, LIKE)
    # The distance at which the density has fallen to the threshold.
    threshold = occupancy_threshold(ball()(torch.stack(lattice(32), dim=-1).view(-1, 3)))
    radius, cell = 0.4 + log(200 / threshold - 1) / 60, 2 / 32
    # The outermost lattice points within are a cell at most from the ball's ends, but for being half a cell beside the
    # axis in both other directions.
    short = cell + (cell**2 / 2) / (2 * radius)
    torch.testing.assert_close(shape.center, torch.tensor([0.3, -0.2, 0.1]), atol=short / 2, rtol=0)
    assert 1.15 * (radius + cell - short) <= shape.half <= 1.15 * (radius + cell)
    surface = marching_tetrahedra(Grid(shape.distance[None], 0.0))
    placed = shape.center + shape.half * surface.vertices.detach()
    error = (placed - torch.tensor([0.3, -0.2, 0.1])).norm(dim=1) - radius
    # All interpolation is inwards, by d^2 / (8 r) along an edge d: a cell's, the diagonal of a flat face between two
    # such edges at most, and a tetrahedron's longest.
    assert error.max() < 0
    assert -error.min() < (1 + 2 + 3) * (2 * shape.half / 32) ** 2 / (8 * radius)
    assert volume(Mesh(placed, surface.faces)) > 0


def test_fog_and_specks_are_left_out():
    def foggy(points: torch.Tensor) -> torch.Tensor:
        return ball(outside=0.3)(points) + ball((-0.8, 0.8, -0.8), 0.03)(points)

    clean, corrupt = shape_of(ball(), 33, None, LIKE), shape_of(foggy, 33, None, LIKE)
    # The box follows the lattice points within, and the fog brings none of them across the threshold.
    assert torch.equal(corrupt.center, clean.center)
    assert corrupt.half == clean.half


def test_cavities_are_filled_and_openings_are_not():
    def hollow(points: torch.Tensor) -> torch.Tensor:
        return ball()(points) - ball(radius=0.25)(points)

    solid, filled = shape_of(ball(), 33, None, LIKE), shape_of(hollow, 33, None, LIKE)
    assert torch.equal(filled.distance < 0, solid.distance < 0)

    def opened(points: torch.Tensor) -> torch.Tensor:
        beside = (points[:, :2] - torch.tensor([0.3, -0.2])).norm(dim=1)
        return torch.where((beside < 0.1) & (points[:, 2] > 0.1), 0.0, hollow(points))

    cup = shape_of(opened, 33, None, LIKE)
    assert cup.distance[16, 16, 16] > 0  # the middle is outside still


def test_a_box_stays_in_the_world():
    shape = shape_of(ball((0.7, 0.0, 0.0), 0.6), 25, None, LIKE)
    assert shape.center.abs().max() + shape.half <= 1 + 1e-6
    surface = marching_tetrahedra(Grid(shape.distance[None], 0.0))
    assert Mesh(surface.vertices.detach(), surface.faces).watertight


def test_errors_propose_a_threshold():
    with pytest.raises(NoSurfaceError, match="empty everywhere: its density is at most 1e-05"):
        shape_of(lambda points: 1e-5 * points[:, 0].sigmoid() / torch.tensor(1.0).sigmoid(), 9, None, LIKE)
    with pytest.raises(NoSurfaceError, match="its density is 3 everywhere"):
        shape_of(lambda points: torch.full_like(points[:, 0], 3.0), 9, None, LIKE)
    with pytest.raises(NoSurfaceError, match=r"no surface at density 500: .* try a threshold of \d"):
        shape_of(ball(), 17, 500.0, LIKE)
    with pytest.raises(ValueError, match="not finite"):
        shape_of(lambda points: points[:, 0] / 0, 9, None, LIKE)
