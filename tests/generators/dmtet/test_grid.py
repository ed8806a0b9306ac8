"""The tetrahedral grid: it fills the box, its faces meet, and no shift turns a tetrahedron inside out."""

from itertools import product

import pytest
import torch
from generators.dmtet.shapes import lattice, shifted, sphere

from scoredistill.generators.dmtet.grid import LARGEST_SHIFT, TETRAHEDRA, Grid, corner_steps


def tetrahedra(cells: int) -> torch.Tensor:
    """All of a lattice's tetrahedra as rows of its points, (T, 4)."""
    points = cells + 1
    place = torch.arange(points**3).view(points, points, points)[:-1, :-1, :-1].flatten()
    corner = torch.tensor(corner_steps(points))[torch.tensor(TETRAHEDRA)]
    return (place[:, None, None] + corner).flatten(0, 1)


def volumes(points: torch.Tensor, tets: torch.Tensor) -> torch.Tensor:
    a, b, c, d = points[tets].unbind(1)
    return ((b - a) * torch.linalg.cross(c - a, d - a)).sum(1) / 6


@pytest.mark.parametrize("cells", [2, 5])
def test_the_tetrahedra_fill_the_box_and_meet_face_to_face(cells):
    tets = tetrahedra(cells)
    grid = shifted(torch.ones(1, *(cells + 1,) * 3), 3.0)
    _, moved = grid.at(torch.arange((cells + 1) ** 3))
    for points in (torch.stack(lattice(cells), -1).view(-1, 3), moved.detach()):
        each = volumes(points, tets)
        assert each.min() > 0
        torch.testing.assert_close(each.sum(), torch.tensor(8.0))
    faces = torch.cat([tets[:, [j for j in range(4) if j != i]] for i in range(4)]).sort(1).values
    kinds, count = faces.unique(dim=0, return_counts=True)
    on_border = (points_on_faces(cells)[kinds]).all(1).any(1)
    assert torch.equal(count, torch.where(on_border, 1, 2))
    assert int(on_border.sum()) == 6 * 2 * cells**2


def points_on_faces(cells: int) -> torch.Tensor:
    """(P, 6) whether each lattice point lies on each face of the box."""
    points = torch.stack(lattice(cells), -1).view(-1, 3)
    return torch.cat([points == -1, points == 1], dim=1)


def test_a_tetrahedron_turns_inside_out_beyond_a_sixth_of_a_cell():
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=12))).view(-1, 4, 3)
    bits = torch.tensor([[corner >> 2 & 1, corner >> 1 & 1, corner & 1] for corner in range(8)]).double()
    for tetrahedron in TETRAHEDRA:
        for share, least in ((LARGEST_SHIFT, 0.0), (0.16, 0.04), (0.2, -0.2)):
            edges = (bits[list(tetrahedron)] + share * signs).diff(dim=1)
            torch.testing.assert_close(torch.linalg.det(edges).min(), torch.tensor(least), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"shift must be in \[0, 1/6\).*got 0.2"):
        Grid(torch.ones(1, 3, 3, 3), 0.2)


def test_the_border_stays_and_is_outside():
    grid = shifted(-torch.ones(1, 5, 5, 5), 9.0)
    inside = grid.inside()
    assert int(inside.sum()) == 27
    distance, position = grid.at(torch.arange(125))
    assert torch.equal(distance < 0, inside.flatten())
    still = torch.stack(lattice(4), -1).view(-1, 3)
    torch.testing.assert_close(position[~inside.flatten()], still[~inside.flatten()])
    assert (position - still).abs().max() <= 0.16 * 0.5 + 1e-12


def test_a_distance_of_zero_is_a_little_outside_and_keeps_its_gradient():
    grid = Grid(torch.zeros(1, 4, 4, 4), 0.1)
    distance, _ = grid.at(torch.tensor([21]))
    assert distance.item() == pytest.approx(1e-4 * 2 / 3)
    distance.sum().backward()
    assert grid.distance.grad.sum() == 1


@pytest.mark.parametrize("cells", [24, 48])
def test_resampling_keeps_a_shifted_surface(cells):
    # Distances at the shifted points are the sphere's; a lattice without shifts must compute its own.
    grid = shifted(sphere(24)[None], 1.0)
    _, position = grid.at(torch.arange(25**3))
    with torch.no_grad():
        grid.distance.copy_((position.norm(dim=1) - 0.6).view(1, 25, 25, 25))
    found = grid.resampled(cells + 1)
    near = sphere(cells).abs() < 0.1
    assert (found[0] - sphere(cells))[near].abs().max() < 0.006
    without = Grid(grid.distance.detach(), 0.0).resampled(cells + 1)
    assert (without[0] - sphere(cells))[near].abs().max() > 0.01
