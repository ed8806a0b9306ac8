"""From densities to surfaces: threshold, box, pieces, errors."""

import pytest
import torch
from generators.dmtet.shapes import volume

from scoredistill.generators.dmtet.density import occupancy_threshold, shape_of
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.marching import marching_tetrahedra
from scoredistill.rendering.mesh import Mesh, NoSurfaceError

LIKE = torch.zeros(1)


def ball(center=(0.3, -0.2, 0.1), radius: float = 0.4, inside: float = 200.0, outside: float = 0.0):
    def density(points: torch.Tensor) -> torch.Tensor:
        distance = (points - torch.tensor(center)).norm(dim=1) - radius
        return outside + (inside - outside) * torch.sigmoid(-60 * distance)

    return density


def test_the_threshold_parts_two_classes():
    values = torch.cat([torch.full((900,), 0.5), torch.full((100,), 150.0)])
    assert 1 < occupancy_threshold(values) < 100
    rng = torch.Generator().manual_seed(0)
    soft = torch.cat([0.02 * torch.rand(900, generator=rng), 2 + torch.rand(100, generator=rng)])
    assert 0.02 < occupancy_threshold(soft) < 2


def test_the_box_is_tightened_around_a_ball_and_the_surface_found():
    shape = shape_of(ball(), 33, None, LIKE)
    torch.testing.assert_close(shape.center, torch.tensor([0.3, -0.2, 0.1]), atol=0.04, rtol=0)
    assert 0.45 < shape.half < 0.6
    surface = marching_tetrahedra(Grid(shape.distance[None], 0.0))
    placed = shape.center + shape.half * surface.vertices.detach()
    radius = (placed - torch.tensor([0.3, -0.2, 0.1])).norm(dim=1)
    assert radius.std() < 0.003
    assert 0 < radius.mean() - 0.4 < 0.06  # where the density has fallen to the threshold
    assert volume(Mesh(placed, surface.faces)) > 0


def test_fog_and_specks_are_left_out():
    def foggy(points: torch.Tensor) -> torch.Tensor:
        return ball(outside=0.3)(points) + ball((-0.8, 0.8, -0.8), 0.03)(points)

    clean, corrupt = shape_of(ball(), 33, None, LIKE), shape_of(foggy, 33, None, LIKE)
    torch.testing.assert_close(corrupt.center, clean.center, atol=0.05, rtol=0)
    assert abs(corrupt.half - clean.half) < 0.05


def test_cavities_are_filled_and_openings_are_not():
    def hollow(points: torch.Tensor) -> torch.Tensor:
        return ball()(points) - ball(radius=0.25)(points)

    solid, filled = shape_of(ball(), 33, None, LIKE), shape_of(hollow, 33, None, LIKE)
    assert ((filled.distance < 0) == (solid.distance < 0)).double().mean() > 0.995

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
    with pytest.raises(NoSurfaceError, match="empty everywhere: the density is at most 1e-05"):
        shape_of(lambda points: 1e-5 * points[:, 0].sigmoid() / torch.tensor(1.0).sigmoid(), 9, None, LIKE)
    with pytest.raises(NoSurfaceError, match="the density is 3 everywhere"):
        shape_of(lambda points: torch.full_like(points[:, 0], 3.0), 9, None, LIKE)
    with pytest.raises(NoSurfaceError, match=r"no surface at density 500: .* try a threshold of \d"):
        shape_of(ball(), 17, 500.0, LIKE)
    with pytest.raises(ValueError, match="not finite"):
        shape_of(lambda points: points[:, 0] / 0, 9, None, LIKE)
