"""Marching tetrahedra: topology, orientation, volume, gradients."""

from math import cos

import pytest
import torch
from generators.dmtet.shapes import SHAPES, lattice, shifted, sphere, torus, volume

from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.surface import Surface, marching_tetrahedra
from scoredistill.rendering.mesh import Mesh


def meshes(surface: Surface) -> list[Mesh]:
    vertices = surface.vertices.detach().split(surface.vertex_counts)
    return [Mesh(v, faces) for v, faces in zip(vertices, surface.faces_of(), strict=True)]


def euler(mesh: Mesh) -> int:
    assert len(mesh.faces.unique()) == len(mesh.vertices)
    return len(mesh.vertices) - len(mesh.faces) // 2


MISSING = {"sphere": 1 / (2 * 0.6**2), "torus": 1 / (6 * 0.25**2)}
"""Share of the volume that linear interpolation leaves out, over the square of a cell's side.

In a tetrahedron it is off by a fortieth of the sum of e^T H e over the six edges e, on average; over a cell's
tetrahedra and the surface that is h^2 / 12 times the sum of both curvatures, whose integral is 8 pi r over the sphere,
and 4 pi^2 R over the torus.
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_topology_and_volume_at_every_resolution(shape):
    distance, characteristic, true = SHAPES[shape]
    for cells in (16, 32, 64, 128):
        (mesh,) = meshes(marching_tetrahedra(Grid(distance(cells)[None], 0.15)))
        assert mesh.watertight
        assert euler(mesh) == characteristic
        # The next term is smaller by the square of a cell over the least radius of curvature, a quarter of it here, and
        # the average over finitely many cells leaves 0.3%: 5.3%, 1.5%, 0.25% and 0.1% are what was measured.
        least = 0.6 if shape == "sphere" else 0.25
        expected = MISSING[shape] * (2 / cells) ** 2
        assert 1 - volume(mesh) / true == pytest.approx(expected, rel=max((2 / cells / least) ** 2 / 4, 3e-3))


def test_several_particles_equal_each_one_alone():
    distances = torch.stack([sphere(20), torus(20), torch.ones(21, 21, 21), sphere(20, 0.3)])
    surface = marching_tetrahedra(shifted(distances))
    assert surface.face_counts[2] == surface.vertex_counts[2] == 0
    assert torch.equal(surface.face_particle.unique_consecutive(), torch.tensor([0, 1, 3]))
    raw = shifted(distances).raw.detach()
    for i, mesh in enumerate(meshes(surface)):
        alone = Grid(distances[i : i + 1], 0.16)
        with torch.no_grad():
            alone.raw.copy_(raw[i : i + 1])
        (own,) = meshes(marching_tetrahedra(alone))
        assert torch.equal(own.faces, mesh.faces)
        torch.testing.assert_close(own.vertices, mesh.vertices)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_watertight_and_stays_in_the_box(seed):
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 13, 13, 13, generator=rng).round(decimals=1)  # zeros among them
    for mesh in meshes(marching_tetrahedra(shifted(values, 3.0, seed))):
        assert mesh.watertight
        assert volume(mesh) > 0
        assert mesh.vertices.abs().max() <= 1


def test_a_surface_that_leaves_the_box_is_closed_half_a_cell_before_it():
    x, _, _ = lattice(16)
    (mesh,) = meshes(marching_tetrahedra(Grid(x[None], 0.15)))  # all of x < 0
    assert mesh.watertight
    assert euler(mesh) == 2
    # The end at x = -1 lies between distances of 1 and -7/8, 1/30 of a cell farther in than halfway, and each of the
    # twelve edges is cut off by half a cell at most.
    h, long, wide = 1 / 8, 1 - 1 / 16, 2 - 2 / 16
    assert 0 < long * wide**2 - volume(mesh) < h / 30 * wide**2 + (h / 2) ** 2 / 2 * (4 * long + 8 * wide)
    (mesh,) = meshes(marching_tetrahedra(Grid(-torch.ones(1, 9, 9, 9), 0.15)))
    assert mesh.watertight


def test_a_level_moves_the_surface():
    grid = Grid(sphere(32, 0.4)[None], 0.15)
    (mesh,) = meshes(marching_tetrahedra(grid, 0.2))
    # On the longest edge, a cell's diagonal d, the linear interpolation is off by d^2 / (8 r) at most.
    assert (mesh.vertices.norm(dim=1) - 0.6).abs().max() < 3 / 16**2 / (8 * 0.5)


def test_distances_of_exactly_zero():
    values = sphere(8, 0.5)
    values[values.abs() < 0.05] = 0.0
    assert (values == 0).any()
    (mesh,) = meshes(marching_tetrahedra(Grid(values[None], 0.15)))
    assert mesh.watertight
    assert euler(mesh) == 2
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert torch.linalg.cross(b - a, c - a).norm(dim=1).min() > 0


def test_gradients_against_finite_differences():
    grid = shifted(sphere(5, 0.55)[None] + 0.03 * torch.randn(1, 6, 6, 6))
    weights = torch.randn(len(marching_tetrahedra(grid).vertices), 3)

    def value(distance: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        other = Grid(distance.detach(), 0.16)
        del other.distance, other.raw
        other.distance, other.raw = distance, raw
        surface = marching_tetrahedra(other)
        return (surface.vertices * weights).sum() + (surface.normals * weights).sum()

    assert torch.autograd.gradcheck(value, (grid.distance, grid.raw), eps=1e-7, atol=1e-5)


def test_normals_point_outwards():
    surface = marching_tetrahedra(Grid(sphere(24)[None], 0.15))
    cosine = (surface.normals * surface.vertices).sum(1) / surface.vertices.norm(dim=1)
    # A face has the gradient of the middles of its tetrahedron's edges, on average a cell at most from the vertex, over
    # which the sphere's normal turns by h / r.
    assert cosine.min() > cos(2 / 24 / 0.6)
    torch.testing.assert_close(surface.normals.norm(dim=1), torch.ones(len(surface.vertices)))


def test_an_empty_picture_has_zero_gradient():
    grid = Grid(torch.ones(2, 5, 5, 5), 0.15)
    surface = marching_tetrahedra(grid)
    assert surface.vertices.shape == surface.faces.shape == (0, 3)
    (surface.vertices.sum() + surface.normals.sum()).backward()
    assert not grid.distance.grad.any()
