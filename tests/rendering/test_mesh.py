import math

import pytest
import torch

from scoredistill.rendering.mesh import SUFFIXES, Mesh, NoSurfaceError, chamfer, marching_cubes


def ball(radius: float, resolution: int = 41, center: float = 0.0) -> torch.Tensor:
    axis = torch.linspace(-1, 1, resolution, dtype=torch.float64)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return ((x - center) ** 2 + y**2 + z**2).sqrt() - radius


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return (torch.linalg.cross(a, b) * c).sum().item() / 6


@pytest.mark.parametrize(("sign", "inside"), [(1, "below"), (-1, "above")])
def test_marching_cubes_finds_the_sphere_closed_and_wound_outward(sign, inside):
    mesh = marching_cubes(sign * ball(0.5, center=0.25), 0.0, inside=inside)
    assert mesh.watertight
    # Vertices lie within by h^2 / (6 r) on average, flat faces between them by as much again: (h / r)^2 of the volume.
    assert 0 < 1 - volume(mesh) / (4 / 3 * math.pi * 0.5**3) < (0.05 / 0.5) ** 2
    distance = (mesh.vertices - torch.tensor([0.25, 0.0, 0.0], dtype=torch.float32)).norm(dim=-1)
    # Interpolation error of a distance: spacing^2 / 8 radius. Values keep off the level by 1e-5 of their range, 1.9.
    assert (distance - 0.5).min() > -(0.05**2) / (8 * 0.5)
    assert (distance - 0.5).max() < 2e-5


def test_marching_cubes_closes_what_leaves_the_box():
    axis = torch.linspace(-1, 1, 21)
    mesh = marching_cubes(axis[:, None, None].expand(21, 21, 21), 0.0, bound=2.0)
    assert mesh.watertight
    # Sides are x / (x + 2) of a spacing of .2 beyond the box, between the values x and -2, and at x = 2 half a spacing
    # lies on top; the four edges there and the four along x are cut off by half a spacing at most.
    x = torch.linspace(0, 2, 2001, dtype=torch.float64)
    whole = torch.trapezoid((4 + 0.4 * x / (x + 2)) ** 2, x).item() + 0.1 * 4.2**2
    assert whole - 0.1**2 / 2 * (4 * 4.2 + 4 * 2.1) < volume(mesh) < whole
    assert mesh.vertices.abs().max() <= 2.2


def test_samples_exactly_at_the_level_leave_the_mesh_watertight(tmp_path):
    steps = torch.randint(-2, 3, (9, 9, 9), generator=torch.Generator().manual_seed(0)).float()
    fine = torch.nn.functional.interpolate(steps[None, None], (17, 17, 17), mode="trilinear", align_corners=True)[0, 0]
    mesh = marching_cubes(fine, 0.0)
    mesh.save(tmp_path / "steps.ply")
    assert mesh.watertight
    assert Mesh.load(tmp_path / "steps.ply").watertight


def test_a_level_outside_the_values_names_them_and_suggests_one():
    with pytest.raises(ValueError, match=r"value 3: .*from -0\.5 to 1\.23.*try a threshold of 0\.36"):
        marching_cubes(ball(0.5), 3.0)
    with pytest.raises(ValueError, match="value nan"):
        marching_cubes(ball(0.5), math.nan)
    with pytest.raises(NoSurfaceError, match="its value is 2 everywhere"):
        marching_cubes(torch.full((3, 3, 3), 2.0), 2.0)
    with pytest.raises(ValueError, match="a value is not finite"):
        marching_cubes(ball(0.5) * math.nan, 0.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mesh_is_restored_from_its_file(suffix, tmp_path):
    mesh = marching_cubes(ball(0.5, 15), 0.0, inside="below")
    colors = torch.rand(mesh.vertices.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    Mesh(mesh.vertices, mesh.faces, colors).save(tmp_path / f"ball{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [f"ball{suffix}"]
    loaded = Mesh.load(tmp_path / f"ball{suffix}")
    assert loaded.watertight
    assert volume(loaded) == pytest.approx(volume(mesh), rel=1e-5)
    nearest = torch.cdist(loaded.vertices.double(), mesh.vertices.double())
    assert nearest.amin(1).max() < 1e-5
    if suffix == ".stl":
        assert loaded.colors is None
    else:
        torch.testing.assert_close(loaded.colors, colors[nearest.argmin(1)], atol=0.5 / 255 + 1e-6, rtol=0)
    mesh.save(tmp_path / f"plain{suffix}")
    assert Mesh.load(tmp_path / f"plain{suffix}").colors is None


def test_saving_makes_folders_and_refuses_unknown_formats(tmp_path):
    mesh = marching_cubes(ball(0.5, 9), 0.0, inside="below")
    mesh.save(str(tmp_path / "a" / "b" / "ball.OBJ"))
    assert (tmp_path / "a" / "b" / "ball.OBJ").exists()
    with pytest.raises(ValueError, match=r"\.glb, \.obj, \.ply, \.stl.*'ball\.png'"):
        mesh.save(tmp_path / "ball.png")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    mesh = marching_cubes(ball(0.5, 9), 0.0, inside="below")
    path = tmp_path / "ball.ply"
    path.write_bytes(b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        mesh.save(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_watertight_sees_a_hole_and_a_flipped_face():
    mesh = marching_cubes(ball(0.5, 9), 0.0, inside="below")
    assert mesh.watertight
    assert not Mesh(mesh.vertices, mesh.faces[1:]).watertight
    flipped = torch.cat([mesh.faces[:1].flip(1), mesh.faces[1:]])
    assert not Mesh(mesh.vertices, flipped).watertight
    assert not Mesh(mesh.vertices, mesh.faces[:0]).watertight


def test_points_are_uniform_over_the_area():
    # Two triangles of areas 1/2 and 2; a point's mean is the centroid of its triangle.
    vertices = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [7, 0, 0], [5, 2, 0]], dtype=torch.float64)
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]))
    points = mesh.sample_points(20_000, torch.Generator().manual_seed(0))
    large = points[:, 0] > 2
    assert abs(large.double().mean().item() - 0.8) < 3 * math.sqrt(0.8 * 0.2 / 20_000)
    # Each coordinate of a uniform point of a right triangle of legs a varies by a^2 / 18.
    for chosen, leg, corner in ((~large, 1.0, 0.0), (large, 2.0, 5.0)):
        error = points[chosen].mean(0) - torch.tensor([corner + leg / 3, leg / 3, 0.0], dtype=torch.float64)
        assert error.abs().max() < 3 * math.sqrt(leg**2 / 18 / chosen.sum().item())
    again = mesh.sample_points(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(points, again)


def test_chamfer_of_concentric_spheres_is_the_gap():
    a, b = (marching_cubes(ball(radius), 0.0, inside="below") for radius in (0.4, 0.7))
    assert chamfer(a, a) == 0
    assert chamfer(a, b) == chamfer(b, a)
    # Of n samples the nearest is at an angle of mean square 4 / n from the foot of the perpendicular, which lengthens
    # the gap by .4 .7 / .3 times half of that; and the inner mesh is within its sphere by up to h^2 / (3 r) on average.
    aside = 0.4 * 0.7 / 0.3 * 2 / 4000
    assert 0 < chamfer(a, b, points=4000) - 0.3 < aside + 0.05**2 / (3 * 0.4)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"vertices \(N, 3\)"):
        Mesh(torch.zeros(4, 2), torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="4 vertices but colors"):
        Mesh(torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.long), torch.zeros(5, 3))
