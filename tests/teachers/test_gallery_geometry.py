"""The Gallery's solids, tracing and renders against exact references."""

import pytest
import torch

from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery import Gallery, solids
from scoredistill.teachers.gallery.catalog import models
from scoredistill.teachers.gallery.render import lattice, shading
from scoredistill.teachers.gallery.sdf import distance, gradient

GALLERY = Gallery()
NOUNS = GALLERY.vocabulary().nouns
SOLIDS = {
    "sphere": solids.sphere("m", 0.4),
    "box": solids.box("m", 0.3, 0.2, 0.5),
    "cylinder": solids.cylinder("m", 0.3, 0.5),
    "pointed cone": solids.cone("m", 0.5, 0.0, 0.4),
    "blunt cone": solids.cone("m", 0.5, 0.2, 0.4),
    "pyramid": solids.pyramid("m", 0.5, 0.4, 0.3, 0.2),
    "capsule": solids.capsule("m", 0.1, 0.4),
    "torus": solids.torus("m", 0.4, 0.1),
    "cup": solids.cup("m", 0.4, 0.3, 0.06),
    "dome": solids.dome("m", 1, 1, 1, 0.2),
}
ANALYTIC = {
    "sphere": lambda p: p.norm(dim=-1) - 0.4,
    "torus": lambda p: torch.hypot(torch.hypot(p[:, 0], p[:, 2]) - 0.4, p[:, 1]) - 0.1,
    "capsule": lambda p: torch.hypot(torch.hypot(p[:, 0], p[:, 2]), (p[:, 1].abs() - 0.4).clamp(min=0)) - 0.1,
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orbit(azimuth: list[float], elevation: float = 20.0, radius: float = 2.6, fov: float = 40.0) -> Camera:
    a = torch.tensor(azimuth)
    return Camera.orbit(a, a * 0 + elevation, a * 0 + radius, a * 0 + fov)


def of(solid: solids.Part, points: torch.Tensor) -> torch.Tensor:
    return distance([torch.tensor(v) for v in solid.shape], *points.T)


@pytest.mark.parametrize("name", ANALYTIC)
def test_solids_equal_their_closed_forms(name):
    points = torch.rand(2000, 3, generator=rng()) * 2 - 1
    outside = ANALYTIC[name](points) > 0
    torch.testing.assert_close(of(SOLIDS[name], points[outside]), ANALYTIC[name](points[outside]), atol=1e-12, rtol=0)
    assert ((of(SOLIDS[name], points) > 0) == outside).all()


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_1_lipschitz_and_their_gradients_right(name):
    solid = SOLIDS[name]
    a = torch.rand(5000, 3, generator=rng()) * 2 - 1
    b = a + 0.1 * torch.randn(5000, 3, generator=rng(1))
    assert ((of(solid, a) - of(solid, b)).abs() <= (a - b).norm(dim=-1) + 1e-12).all()
    assert (of(solid, a) < 0).any()
    assert (of(solid, a) > 0).any()
    step = 1e-6 * torch.eye(3)
    numeric = torch.stack([(of(solid, a + e) - of(solid, a - e)) / 2e-6 for e in step], dim=-1)
    exact = torch.stack(gradient([torch.tensor(v) for v in solid.shape], *a.T), dim=-1)
    torch.testing.assert_close(exact, numeric, atol=1e-6, rtol=0)
    torch.testing.assert_close(exact.norm(dim=-1), torch.ones(5000), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SOLIDS)
def test_support_and_box_contain_the_solid(name):
    points = torch.rand(40_000, 3, generator=rng()) * 2.4 - 1.2
    inside = points[of(SOLIDS[name], points) < 0]
    low, high = (torch.tensor(corner) for corner in SOLIDS[name].box())
    assert ((inside >= low) & (inside <= high)).all()
    turned = SOLIDS[name].turned("x", 30).at(0.1, 0.2, 0.3)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=rng(2)), dim=-1)
    placed = inside @ (turned.linear @ SOLIDS[name].linear.inverse() @ SOLIDS[name].linear).T + turned.center
    assert ((placed @ directions.T).amax(0) <= turned.support(directions)).all()


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_distinct_variants_that_fit_the_sphere_even_when_large(noun):
    count = GALLERY.variant_count(noun)
    assert count >= 4
    directions = torch.nn.functional.normalize(torch.randn(2000, 3, generator=rng()), dim=-1)
    for k in range(count):
        assert (GALLERY.distance(f"a large {noun}", k, 0.8 * directions) >= 0).all()
        reach = max(part.support(directions).max().item() for part in models(noun, "large")[k].parts)
        assert 0.75 < reach <= 0.8
    rgb = GALLERY.renders(f"a {noun}", orbit([30.0]), 32, 32).rgb[0].flatten(1)
    apart = torch.cdist(rgb, rgb) + 100 * torch.eye(count)
    assert apart.min() > 5  # of a norm of about 55: far beyond rounding and pixel noise


@pytest.mark.parametrize("noun", NOUNS)
def test_scenes_are_1_lipschitz(noun):
    a = torch.rand(3000, 3, generator=rng()) * 2 - 1
    b = a + 0.1 * torch.randn(3000, 3, generator=rng(1))
    for k in range(GALLERY.variant_count(noun)):
        gap = (GALLERY.distance(noun, k, a) - GALLERY.distance(noun, k, b)).abs()
        assert (gap <= (a - b).norm(dim=-1) + 1e-12).all()


@pytest.mark.parametrize("noun", NOUNS)
def test_depth_is_the_first_crossing_and_normals_are_the_gradient(noun):
    camera = orbit([25.0, 160.0])
    render = GALLERY.renders(noun, camera, 18, 18)
    origins, directions = (value.reshape(2, -1, 3) for value in camera.rays(18, 18))
    steps = torch.linspace(0, 1, 40)[:, None]
    for k in range(GALLERY.variant_count(noun)):
        for v in range(2):
            depth = render.depth[v, k].reshape(-1)
            hit = depth > 0
            o, d, t = origins[v, hit], directions[v, hit], depth[hit, None]
            point = o + t * d
            assert GALLERY.distance(noun, k, point).abs().max() < 1e-8
            # Nothing lies before the hit, nor anywhere on the rays that miss.
            before = o + (1.8 + (t - 1e-6 - 1.8) * steps[..., None]) * d
            assert (GALLERY.distance(noun, k, before.reshape(-1, 3)) > 0).all()
            beside = origins[v, ~hit] + (1.8 + 1.6 * steps[..., None]) * directions[v, ~hit]
            assert (GALLERY.distance(noun, k, beside.reshape(-1, 3)) > 0).all()

            normal = render.normals[v, k].reshape(3, -1).T
            torch.testing.assert_close(normal[hit].norm(dim=-1), torch.ones(len(point)), atol=1e-12, rtol=0)
            assert (normal[~hit] == 0).all()
            step = 1e-6 * torch.eye(3)
            numeric = [GALLERY.distance(noun, k, point + e) - GALLERY.distance(noun, k, point - e) for e in step]
            slope = torch.nn.functional.normalize(torch.stack(numeric, dim=-1), dim=-1)
            # On seams, where two parts or two faces meet, the distance has no gradient to compare with.
            agrees = (slope - normal[hit]).norm(dim=-1) < 1e-4
            assert agrees.double().mean() > 0.98


def test_pictures_show_one_object_from_all_sides():
    """A point that two cameras see has the same color in both, and the depths of the geometry."""
    camera = orbit([10.0, 40.0])
    render = Gallery(supersample=1).renders("a toy", camera, 64, 64)
    origins, directions = camera.rays(64, 64)
    for k in range(4):
        hit = render.depth[0, k, 0] > 0
        point = origins[0][hit] + render.depth[0, k, 0][hit][:, None] * directions[0][hit]
        color = render.rgb[0, k][:, hit].T
        expected = 2 * GALLERY.albedo("a toy", k, point) * shading(render.normals[0, k][:, hit].T)[:, None] - 1
        torch.testing.assert_close(color, expected, atol=1e-9, rtol=0)

        # In the second camera: the pixel whose central ray is nearest to the point.
        away = point - camera.position[1]
        local = away @ camera.pose[1, :3, :3]
        half = torch.tan(torch.deg2rad(camera.fov[1]) / 2)
        column = (((local[:, 0] / -local[:, 2] / half) + 1) * 32 - 0.5).round().long()
        row = ((1 - (local[:, 1] / -local[:, 2] / half)) * 32 - 0.5).round().long()
        normal = render.normals[0, k][:, hit].T
        facing = -(normal * torch.nn.functional.normalize(away, dim=-1)).sum(-1)
        other = render.depth[1, k, 0][row, column]
        visible = (facing > 0.5) & (other > 0) & (other > away.norm(dim=-1) - 0.1)
        assert visible.sum() > 200
        # Half a pixel is 0.7 pixel pitch of .03 sideways; at 60 degrees that is .04 in depth.
        gap = (other - away.norm(dim=-1)).abs()[visible]
        assert (gap < 0.04).double().mean() > 0.97
        step = (render.rgb[1, k][:, row, column].T - color).abs().amax(-1)[visible]
        assert (step < 0.1).double().mean() > 0.93


@pytest.mark.parametrize("shows", ["colors", "normals"])
def test_edges_converge_to_the_average_over_the_pixel(shows):
    camera = orbit([30.0])

    def shown(supersample: int, size: int) -> torch.Tensor:
        return Gallery(supersample=supersample, shows=shows).renders("a robot", camera, size, size).rgb[0]

    expected = torch.nn.functional.avg_pool2d(shown(1, 24 * 12), 12)
    error = {n: (shown(n, 24) - expected).square().mean().sqrt().item() for n in (1, 5, 21)}
    assert error[5] < 0.4 * error[1]
    # Steps of the shading below the threshold, and what lies between the central rays, are not sampled again.
    assert error[21] < 0.6 * error[5]


def test_pictures_of_normals_show_geometry_alone():
    camera, behind = orbit([30.0, 200.0]), torch.tensor([[0.1, -0.2, 0.3], [1.0, 0.0, -1.0]])
    teacher = Gallery(shows="normals", supersample=1)
    render = teacher.renders("a mug", camera, 20, 20, behind)
    hit = render.depth > 0
    expected = torch.where(hit, render.normals, behind[:, None, :, None, None])
    torch.testing.assert_close(render.rgb, expected, atol=1e-12, rtol=0)
    assert torch.equal(render.rgb, teacher.renders("a blue mug", camera, 20, 20, behind).rgb)


def test_the_sampling_lattice_has_one_point_in_each_row_and_column():
    for n in (2, 5, 8, 13):
        cells = ((lattice(n) + 0.5) * n - 0.5).round().long()
        assert cells.sort(dim=0).values.tolist() == [[i, i] for i in range(n)]
        torch.testing.assert_close(lattice(n).mean(0), torch.zeros(2), atol=1e-12, rtol=0)


def test_float32_and_float64_agree():
    camera = orbit([30.0])
    single = GALLERY.renders("a mug", Camera(camera.pose.float(), camera.fov.float()), 48, 48)
    double = GALLERY.renders("a mug", camera, 48, 48)
    assert single.rgb.dtype == torch.float32
    # A rounding error may move a ray across an edge, and with it one of five samples of a pixel. On a rounded edge of
    # radius .01 an error of 1e-6 in the place is one of 1e-4 in the normal.
    differing = ((single.rgb - double.rgb).abs().amax(2) > 1e-3).double().mean()
    assert differing < 0.002


@pytest.mark.parametrize("noun", ["mug", "snowman", "boat"])
def test_a_mesh_is_the_variants_surface(noun):
    for k in (0, 3):
        mesh = GALLERY.mesh(f"a red {noun}", k, resolution=48)
        assert mesh.watertight
        spacing = 1.7 / 47
        gap = GALLERY.distance(f"a red {noun}", k, mesh.vertices.double()).abs()
        assert gap.max() < 0.5 * spacing
        assert gap.mean() < 0.05 * spacing
        torch.testing.assert_close(mesh.colors, GALLERY.albedo(f"a red {noun}", k, mesh.vertices))
        assert len(mesh.colors.unique(dim=0)) > 2


def test_cameras_inside_or_turned_away_work():
    away = orbit([0.0])
    turned = away.pose.clone()
    turned[:, :3, [0, 2]] *= -1
    render = GALLERY.renders("a mug", Camera(turned, away.fov), 8, 8)
    assert (render.opacity == 0).all()
    assert torch.equal(render.rgb, torch.full_like(render.rgb, 0.7))
    inside = GALLERY.renders("a toy", orbit([0.0], radius=0.1), 8, 8)
    assert inside.rgb.isfinite().all()
    assert (inside.opacity[0, 0] == 1).all()
