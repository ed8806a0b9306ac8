"""Initial surfaces: balls, ellipsoids, mesh files."""

import pytest
import torch
from generators.dmtet.shapes import lattice, sphere, volume

from scoredistill.generators.dmtet import Ellipsoid, InitialShape, MeshShape
from scoredistill.generators.dmtet.distance import signed_distance, to_triangle
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.surface import marching_tetrahedra
from scoredistill.rendering.mesh import Mesh


def start(shape: InitialShape, cells: int = 24, particles: int = 1) -> torch.Tensor:
    return shape(torch.linspace(-1, 1, cells + 1), particles, torch.Generator().manual_seed(0))


def surface_of(distance: torch.Tensor) -> Mesh:
    surface = marching_tetrahedra(Grid(distance[None], 0.0))
    return Mesh(surface.vertices.detach(), surface.faces)


def test_a_ball_is_exact():
    (found,) = start(Ellipsoid(size_variation=0, shape_variation=0))
    torch.testing.assert_close(found, sphere(24, 0.5))


def test_an_ellipsoid_has_its_radii_and_unit_slope():
    radii, cell = torch.tensor([0.8, 0.4, 0.6]), 2 / 48
    (found,) = start(Ellipsoid(radii.tolist(), 0, 0), 48)
    mesh = surface_of(found)
    k, steepness = ((mesh.vertices / radii**power).norm(dim=1) for power in (1, 2))
    # Along the longest edge, a cell's diagonal d, the surface is off by d^2 / 8 times its largest curvature, a / c^2.
    assert ((k - 1) / steepness).abs().max() < 3 * cell**2 / 8 * (0.8 / 0.4**2)
    assert found[24, 24, 24] == -0.4
    slope = torch.stack(torch.gradient(found, spacing=cell)).norm(dim=0)
    # The slope is off by |s| ((a^2 + c^2)^2 / (2 a c)^2 - 1) / c at most, by Kantorovich's inequality; and central
    # differences of a distance by h^2 / 3 times its squared curvature.
    bound = 0.02 * ((0.8**2 + 0.4**2) ** 2 / (2 * 0.8 * 0.4) ** 2 - 1) / 0.4 + cell**2 / 3 * (0.8 / 0.4**2) ** 2
    assert (slope[found.abs() < 0.02] - 1).abs().max() < bound


def test_particles_differ_by_size_and_wave():
    distance = start(Ellipsoid(), particles=3)
    volumes = [volume(surface_of(each)) for each in distance]
    assert len({round(v, 3) for v in volumes}) == 3
    wave = start(Ellipsoid(size_variation=0, shape_variation=0.03), 24, 400) - sphere(24, 0.5)
    squares = wave.square().mean(dim=(1, 2, 3))
    assert (squares.mean() - 0.03**2).abs() < 3 * squares.std() / 400**0.5


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"radii must be above 0, got 0.0"):
        Ellipsoid((0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match="shape_variation must be at least 0"):
        Ellipsoid(shape_variation=-1)
    with pytest.raises(ValueError, match=r"size must lie in \(0, 2\].*got 3"):
        MeshShape("a.ply", 3)


def box(*sides: float) -> Mesh:
    import trimesh

    solid = trimesh.creation.box(sides)
    return Mesh(torch.tensor(solid.vertices.copy()), torch.tensor(solid.faces.copy()).long())


def box_distance(cells: int, *sides: float) -> torch.Tensor:
    q = torch.stack([x.abs() - side / 2 for x, side in zip(lattice(cells), sides, strict=True)])
    return q.clamp(min=0).norm(dim=0) + q.amax(0).clamp(max=0)


@pytest.mark.parametrize("cells", [20, 48])
def test_distance_from_a_mesh(cells):
    sides = (1.1, 0.83, 0.57)
    found, true = signed_distance(box(*sides), cells + 1), box_distance(cells, *sides)
    near = true.abs() < 2 * 2 / cells
    torch.testing.assert_close(found[near], true[near])
    # Farther away, the nearest touched point is half a cell's diagonal from a sample at most, and that half a cell from
    # the true nearest place.
    assert (found - true).abs().max() < (0.75**0.5 + 0.5) * 2 / cells
    assert torch.equal(found < 0, true < 0)


def test_distance_from_a_fine_mesh_on_lattice_planes():
    # Vertices, edges and faces on the lattice's lines are the difficult case for counting crossings.
    found, true = signed_distance(box(1.0, 1.0, 1.0), 17), box_distance(16, 1.0, 1.0, 1.0)
    torch.testing.assert_close(found[true.abs() < 0.2], true[true.abs() < 0.2])
    import trimesh

    ball = trimesh.creation.icosphere(4, 0.6)
    found = signed_distance(Mesh(torch.tensor(ball.vertices.copy()), torch.tensor(ball.faces.copy()).long()), 33)
    near = sphere(32).abs() < 0.1
    # The facets lie within the ball, by as much as their planes are nearer to its center.
    within = 0.6 - (ball.face_normals * ball.triangles[:, 0]).sum(1).min()
    error = (found - sphere(32))[near]
    assert error.min() > -1e-9
    assert error.max() <= within + 1e-9


def test_holes_overlaps_and_the_box_s_faces():
    cut = box(1.0, 1.0, 1.0)
    holed = Mesh(cut.vertices, cut.faces[2:])
    found, true = signed_distance(holed, 33), box_distance(32, 1.0, 1.0, 1.0)
    assert torch.equal((found < 0)[true.abs() > 0.01], (true < 0)[true.abs() > 0.01])
    twice = Mesh(torch.cat([cut.vertices, cut.vertices + 0.3]), torch.cat([cut.faces, cut.faces + len(cut.vertices)]))
    x = torch.stack(lattice(19))
    union = (x.abs() < 0.5).all(0) | ((x - 0.3).abs() < 0.5).all(0)
    assert torch.equal(signed_distance(twice, 20) < 0, union)
    large = signed_distance(box(3.0, 1.0, 1.0), 20)
    assert torch.equal(large < 0, (x[1:].abs() < 0.5).all(0))


def test_distance_from_triangles():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points = torch.tensor([[0.2, 0.2, 0.5], [-1, 0.5, 0], [2, -1, 0], [1, 1, 0], [0.1, 0.1, 0]])
    expected = torch.tensor([0.5, 1.0, 2**0.5, 0.5**0.5, 0.0])
    torch.testing.assert_close(to_triangle(points, corners.expand(5, 3, 3)), expected)


def test_a_mesh_without_area_is_refused():
    with pytest.raises(ValueError, match="positive area"):
        signed_distance(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 5)


def test_a_mesh_file_is_brought_to_its_size(tmp_path):
    mesh = box(2.0, 1.0, 0.6)
    path = tmp_path / "box.ply"
    Mesh(mesh.vertices + 5, mesh.faces).save(path)
    distance = start(MeshShape(path, 1.4), 40, 2)
    assert torch.equal(distance[0], distance[1])
    low, high = surface_of(distance[0]).vertices.aminmax(dim=0)
    # Distances are linear across a flat face: vertices stay off lattice points by a ten-thousandth of a cell, 5e-6.
    torch.testing.assert_close(high, torch.tensor([0.7, 0.35, 0.21]), atol=1e-5, rtol=0)
    torch.testing.assert_close(low, -high)
    mesh.save(path)
    as_it_is = surface_of(start(MeshShape(path, None), 40)[0]).vertices.amax(0)
    torch.testing.assert_close(as_it_is, torch.tensor([1.0, 0.5, 0.3]), atol=1e-5, rtol=0)
    waved = start(MeshShape(path, 1.4, 0.02), 16, 2)
    assert not torch.equal(waved[0], waved[1])
