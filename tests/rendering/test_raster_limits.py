"""The rasterizer's limits: the near plane, degenerate and empty meshes, many faces and pictures."""

import pytest
import torch
from rendering.shapes import cast, orbit, seen, surface

from scoredistill.rendering import Fragments, Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.scene import to_pixels
from scoredistill.rendering.visibility import CANDIDATES, boxes, nearest_faces

HEIGHT, WIDTH = 40, 56
SIDES = orbit(0.0, 70.0, 200.0, elevation=35.0)


def test_a_camera_inside_a_mesh_sees_its_inside_everywhere() -> None:
    camera = orbit(10.0, 130.0, radius=0.3, elevation=15.0, fov=100.0)
    scene = seen(camera, surface("cube"), HEIGHT, WIDTH)
    fragments = rasterize(scene, HEIGHT, WIDTH)
    assert bool((fragments.face >= 0).all())
    expected = torch.stack([cast(camera[i : i + 1], surface("cube"), HEIGHT, WIDTH) for i in range(2)])
    _, directions = camera.rays(HEIGHT, WIDTH)
    cosine = (directions * -camera.pose[:, None, None, :3, 2]).sum(-1)
    torch.testing.assert_close(fragments.depth, expected * cosine, atol=1e-5, rtol=0)
    torch.testing.assert_close(antialias(fragments.mask, fragments, scene), fragments.mask)


def test_faces_across_the_near_plane_are_seen_beyond_it_only() -> None:
    """A floor that runs from behind the camera to far in front fills the picture from the horizon to the near plane."""
    camera = Camera(torch.eye(4)[None], torch.tensor([90.0]))
    floor = torch.tensor([[-50.0, -0.5, 40], [50, -0.5, 40], [50, -0.5, -40], [-50, -0.5, -40]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    depth = rasterize(Scene.of(project(camera, floor, 32, 32, near=0.8), faces), 32, 32).depth[0]
    below = (torch.arange(32) - 15.5) / 16  # of the viewing direction, at distance 1
    expected = 0.5 / below
    expected = torch.where((below > 0) & (expected >= 0.8) & (expected <= 40), expected, 0.0)
    torch.testing.assert_close(depth, expected[:, None].expand(32, 32))
    behind = Scene.of(project(camera, floor * torch.tensor([1, 1, 0.0]) + torch.tensor([0, 0, 3.0]), 32, 32), faces)
    assert rasterize(behind, 32, 32).mask.sum() == 0


def test_degenerate_and_infinite_faces_are_left_out() -> None:
    camera = orbit(0.0, elevation=0.0)
    vertices, faces = surface("square")
    odd = torch.tensor([[-1.0, -1, 0.5], [1, 1, 0.5], [0, 0, 0.5], [torch.nan, 0, 0.5], [torch.inf, 0, 0.5]])
    bad = torch.tensor([[4, 5, 6], [4, 4, 5], [4, 4, 4], [4, 5, 7], [4, 5, 8]])
    clean = rasterize(seen(camera, (vertices, faces), HEIGHT, WIDTH), HEIGHT, WIDTH)
    scene = seen(camera, (torch.cat([vertices, odd]), torch.cat([faces, bad])), HEIGHT, WIDTH)
    assert torch.equal(rasterize(scene, HEIGHT, WIDTH).face, clean.face)


def test_a_large_picture_is_made_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces larger than a part, and parts of many faces, give the same picture."""
    mesh = surface("sphere3")
    near = torch.cat([mesh[0], 9 * torch.tensor([[-1.0, -1, -0.2], [1, -1, -0.2], [0, 1.0, -0.2]])])
    scene = seen(SIDES, (near, torch.cat([mesh[1], len(mesh[0]) + torch.tensor([[0, 1, 2]])])), HEIGHT, WIDTH)
    whole = rasterize(scene, HEIGHT, WIDTH).face
    assert CANDIDATES <= 2**17
    monkeypatch.setattr("scoredistill.rendering.visibility.CANDIDATES", 777)
    assert torch.equal(rasterize(scene, HEIGHT, WIDTH).face, whole)


def test_boxes_hold_every_pixel_of_their_faces() -> None:
    scene = seen(orbit(20.0, radius=0.9, fov=80.0), surface("sphere1"), HEIGHT, WIDTH)
    corners = to_pixels(scene.clip.float(), HEIGHT, WIDTH)[scene.faces]
    tight = boxes(corners, HEIGHT, WIDTH)
    assert bool((tight[:, :2] + tight[:, 2:] <= torch.tensor([WIDTH, HEIGHT])).all() | (tight[:, 2:] == 0).any())
    full = torch.tensor([0, 0, WIDTH, HEIGHT]).expand_as(tight)
    args = (scene.picture, 1, HEIGHT, WIDTH)
    assert torch.equal(nearest_faces(corners, tight, *args), nearest_faces(corners, full, *args))


@pytest.mark.parametrize("vertices", [0, 5])
def test_an_empty_scene_gives_empty_pictures_with_gradients(vertices: int) -> None:
    points = torch.rand(vertices, 3, requires_grad=True)
    colors = torch.rand(3 * vertices, 2, requires_grad=True)
    scene = Scene.of(project(SIDES, points, HEIGHT, WIDTH), torch.zeros(0, 3, dtype=torch.int64))
    fragments = rasterize(scene, HEIGHT, WIDTH)
    picture = torch.cat([interpolate(fragments, scene.faces, colors), fragments.mask], dim=1)
    picture = antialias(picture, fragments, scene)
    assert picture.shape == (3, 3, HEIGHT, WIDTH)
    assert picture.abs().sum() + fragments.depth.abs().sum() == 0
    for gradient in torch.autograd.grad(picture.sum() + fragments.depth.sum(), (points, colors)):
        assert gradient.abs().sum() == 0


def test_sixteen_pictures_of_twenty_thousand_faces_in_one_call() -> None:
    """4 particles from 4 views at 256 x 256; 2^17 of the 2 million pairs of face and pixel are held at once."""
    vertices, faces = surface("sphere5")
    points = (0.7 * vertices.float()).requires_grad_()
    sides = orbit(0.0, 90.0, 180.0, 270.0)
    camera = Camera(sides.pose.float(), sides.fov.float())
    scene = Scene.cat([seen(camera, (points * (1 - 0.1 * i), faces), 256, 256) for i in range(4)])
    fragments: Fragments = rasterize(scene, 256, 256)
    mask = antialias(fragments.mask, fragments, scene)
    assert mask.shape == (16, 1, 256, 256)
    coverage = mask.mean((1, 2, 3)).view(4, 4)
    assert bool((coverage.diff(dim=0) < 0).all())
    mask.sum().backward()
    assert points.grad is not None
    assert bool(points.grad.isfinite().all())
