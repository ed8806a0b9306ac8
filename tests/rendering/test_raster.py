"""The rasterizer: projection, visibility, attributes."""

import subprocess
import sys

import pytest
import torch
from rendering.shapes import cast, orbit, seen, surface
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.rendering import Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.scene import to_pixels

HEIGHT, WIDTH = 40, 56
SIDES = orbit(0.0, 70.0, 200.0, elevation=35.0)


def test_points_on_the_rays_project_to_the_pixels_they_pass_through() -> None:
    origins, directions = SIDES.rays(HEIGHT, WIDTH)
    points = (origins + 1.7 * directions).flatten(1, 2)
    column, row, near, w = to_pixels(project(SIDES, points, HEIGHT, WIDTH, near=0.1), HEIGHT, WIDTH).unbind(-1)
    place = torch.arange(HEIGHT * WIDTH).expand(len(SIDES), -1)
    torch.testing.assert_close(column / w, (place % WIDTH).to(w), atol=1e-10, rtol=0)
    torch.testing.assert_close(row / w, (place // WIDTH).to(w), atol=1e-10, rtol=0)
    cosine = (directions * -SIDES.pose[:, None, None, :3, 2]).sum(-1).flatten(1)
    torch.testing.assert_close(w, 1.7 * cosine)
    torch.testing.assert_close(near, 2 * (w - 0.1))


def test_projection_keeps_single_precision_under_autocast() -> None:
    vertices, _ = surface("sphere2")
    camera = Camera(SIDES.pose.float(), SIDES.fov.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clip = project(camera, vertices.float(), HEIGHT, WIDTH)
    torch.testing.assert_close(clip.double(), project(SIDES, vertices, HEIGHT, WIDTH), atol=1e-5, rtol=0)


def test_depth_and_normals_of_a_sphere() -> None:
    """Depth is along the viewing direction: the ray's distance times the cosine between them."""
    center, radius = torch.tensor([0.1, -0.05, 0.2]), 0.6
    vertices, faces = surface("sphere5")
    scene = seen(SIDES, (center + radius * vertices, faces), HEIGHT, WIDTH)
    fragments = rasterize(scene, HEIGHT, WIDTH)
    origins, directions = SIDES.rays(HEIGHT, WIDTH)
    half = (directions * (center - origins)).sum(-1)
    below = half.square() - (center - origins).square().sum(-1) + radius**2
    distance = half - below.clamp(min=0).sqrt()
    clear = (below > 0.02) & (fragments.face >= 0)
    assert clear.sum() > 1000
    depth = distance * (directions * -SIDES.pose[:, None, None, :3, 2]).sum(-1)
    # The faces' planes are nearer to the center than its surface, by which a ray that is inclined goes farther.
    a, b, c = vertices[faces].unbind(1)
    flat = radius * (1 - (normalize(torch.linalg.cross(b - a, c - a), dim=-1) * a).sum(-1).min())
    farther = 0.02**0.5 - (0.02 - 2 * radius * flat) ** 0.5
    assert (fragments.depth - depth)[clear].min() > 0
    assert (fragments.depth - depth)[clear].max() < farther
    normals = normalize(interpolate(fragments, scene.faces, vertices.repeat(len(SIDES), 1)).movedim(1, -1), dim=-1)
    expected = (origins + distance[..., None] * directions - center) / radius
    # The place on the face is as far from that on the sphere.
    assert (normals - expected)[clear].norm(dim=-1).max() < farther / radius


@pytest.mark.parametrize("name", ["sphere4", "torus", "cube"])
@pytest.mark.parametrize("azimuth", [0.0, 45.0, 111.0])
def test_coverage_and_depth_are_those_of_ray_casting(name: str, azimuth: float) -> None:
    """With 5,120 faces of two to three pixels each, no pixel is missing or extra."""
    camera, mesh = orbit(azimuth), surface(name)
    distance = cast(camera, mesh, HEIGHT, WIDTH)
    _, directions = camera.rays(HEIGHT, WIDTH)
    depth = distance * (directions[0] * -camera.pose[0, :3, 2]).sum(-1)
    found = rasterize(seen(camera, mesh, HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert torch.equal(found.face[0] >= 0, distance.isfinite())
    hit = distance.isfinite()
    # Single precision decides between faces that meet at one depth, by up to its rounding along a steep face.
    torch.testing.assert_close(found.depth[0][hit], depth[hit], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_far_smaller_than_a_pixel_leave_no_holes(dtype: torch.dtype) -> None:
    vertices, faces = surface("sphere5")
    camera = Camera(SIDES.pose.to(dtype), SIDES.fov.to(dtype))
    for size in (8, 33):
        mask = rasterize(seen(camera, (2.5 * vertices.to(dtype), faces), size, size), size, size).mask
        assert mask.dtype == dtype
        assert bool((mask == 1).all())  # the camera is in the middle of what it sees


def test_pixels_on_edges_are_seen_once() -> None:
    """A square seen from the front, whose diagonal and sides pass through the centers of pixels up to rounding."""
    camera = orbit(0.0, elevation=0.0, radius=2.0, fov=90.0)
    vertices, faces = surface("square")
    scene = seen(camera, (vertices * 1.5, faces), 8, 8)
    scene = Scene(scene.clip.float(), scene.faces, scene.picture, 1)
    face = rasterize(scene, 8, 8).face[0]
    assert bool((face[1:7, 1:7] >= 0).all())
    assert (face >= 0).sum() == 36
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    assert bool((face[1:7, 1:7] == 0)[(row + column > 7)[1:7, 1:7]].all())
    assert bool((face[1:7, 1:7] == 1)[(row + column < 7)[1:7, 1:7]].all())


def test_the_nearer_surface_is_visible_in_any_order_and_winding() -> None:
    near, far = surface("sphere2"), surface("square")
    vertices = torch.cat([0.3 * near[0] + torch.tensor([0.2, 0, 0.6]), far[0]])
    camera = orbit(0.0)
    faces = torch.cat([near[1], far[1] + len(near[0])])
    one = rasterize(seen(camera, (vertices, faces), HEIGHT, WIDTH), HEIGHT, WIDTH)
    other = rasterize(seen(camera, (vertices, faces.flip(0, 1)), HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert torch.equal(other.face, torch.where(one.face < 0, -1, len(faces) - 1 - one.face))
    torch.testing.assert_close(one.depth, other.depth)
    assert 0 < (one.face >= len(near[1])).sum() < (one.face >= 0).sum()


def test_pictures_of_different_meshes_in_one_call() -> None:
    parts = [seen(SIDES, surface(name), HEIGHT, WIDTH) for name in ("torus", "cube")]
    both = rasterize(Scene.cat(parts), HEIGHT, WIDTH)
    alone = [rasterize(part, HEIGHT, WIDTH) for part in parts]
    assert both.face.shape == (6, HEIGHT, WIDTH)
    torch.testing.assert_close(both.depth, torch.cat([one.depth for one in alone]))
    second = torch.where(alone[1].face < 0, -1, alone[1].face + len(parts[0].faces))
    assert torch.equal(both.face, torch.cat([alone[0].face, second]))
    joined = antialias(both.mask, both, Scene.cat(parts))
    apart = [antialias(one.mask, one, part) for one, part in zip(alone, parts, strict=True)]
    torch.testing.assert_close(joined, torch.cat(apart))


def test_the_derivatives_of_attributes_and_depth() -> None:
    """By gradcheck, whose small steps do not change the visible faces."""
    vertices, faces = surface("sphere0")
    camera = orbit(20.0, 200.0)

    def picture(points: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scene = seen(camera, (points, faces), 5, 7)
        fragments = rasterize(scene, 5, 7)
        return fragments.barycentric, fragments.depth, interpolate(fragments, scene.faces, colors.repeat(2, 1))

    colors = torch.rand(len(vertices), 2, requires_grad=True)
    assert torch.autograd.gradcheck(picture, ((0.7 * vertices).requires_grad_(), colors))


def test_barycentric_coordinates_are_perspective_correct() -> None:
    vertices, faces = surface("torus")
    scene = seen(SIDES, (vertices, faces), HEIGHT, WIDTH)
    fragments = rasterize(scene, HEIGHT, WIDTH)
    hit = fragments.face >= 0
    torch.testing.assert_close(fragments.barycentric.sum(-1), hit.to(vertices))
    # The vertices' positions, interpolated, lie on the pixels' rays.
    place = interpolate(fragments, scene.faces, vertices.repeat(3, 1)).movedim(1, -1)
    origins, directions = SIDES.rays(HEIGHT, WIDTH)
    off = torch.linalg.cross(place - origins, directions).norm(dim=-1)
    assert off[hit].max() < 1e-12


def test_bad_input_is_named() -> None:
    clip, faces = torch.zeros(4, 4), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"picture \(F,\)"):
        Scene(clip, faces, torch.zeros(3, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="near"):
        project(SIDES, clip[:, :3], 4, 4, near=0.0)
    with pytest.raises(ValueError, match="project in float32"):
        Scene(clip.bfloat16(), faces, torch.zeros(2, dtype=torch.int64), 1)
    scene = Scene(clip, faces, torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="height 0"):
        rasterize(scene, 0, 4)
    with pytest.raises(ValueError, match="auto, torch or warp"):
        rasterize(scene, 4, 4, "cuda")  # type: ignore[arg-type]


@pytest.mark.slow
def test_warp_is_imported_only_on_request() -> None:
    code = "import sys, scoredistill.rendering.raster; sys.exit('warp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
