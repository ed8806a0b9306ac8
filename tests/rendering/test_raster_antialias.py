"""Antialiased silhouettes: coverage and its derivatives, occlusion."""

import pytest
import torch
from rendering.shapes import Surface, orbit, seen, surface
from torch import Tensor

from scoredistill.rendering import Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera

SIZE, FINE = 160, 640  # pixels: antialiased, and of the reference, counted without antialiasing
STEP = 0.02  # of the reference's central differences


def moved(vertices: Tensor, to: Tensor, shift: Tensor) -> Tensor:
    """Vertices under a shift (x, y, log scale), scaled about `to`."""
    return vertices * shift[2].exp() + to + torch.stack([shift[0], shift[1], torch.zeros(())])


def areas(camera: Camera, objects: list[tuple[Surface, Tensor]], shift: Tensor, size: int, smooth: bool) -> Tensor:
    """The share of the picture that each object and all objects cover, averaged over cameras."""
    vertices = [moved(mesh[0], to, s) for (mesh, to), s in zip(objects, shift, strict=True)]
    first = [0, *torch.tensor([len(v) for v in vertices]).cumsum(0).tolist()]
    faces = torch.cat([mesh[1] + start for (mesh, _), start in zip(objects, first[:-1], strict=True)])
    colors = torch.cat([torch.eye(len(objects))[i].expand(len(v), -1) for i, v in enumerate(vertices)])
    scene = Scene.of(project(camera, torch.cat(vertices), size, size), faces)
    fragments = rasterize(scene, size, size)
    image = torch.cat([interpolate(fragments, scene.faces, colors.repeat(len(camera), 1)), fragments.mask], dim=1)
    return (antialias(image, fragments, scene) if smooth else image).mean((0, 2, 3))


def derivatives(camera: Camera, objects: list[tuple[Surface, Tensor]]) -> tuple[Tensor, Tensor]:
    """(n + 1, n, 3) derivatives of the areas by every shift, by autograd and by finite differences."""
    n = len(objects)
    ours = torch.autograd.functional.jacobian(lambda s: areas(camera, objects, s, SIZE, True), torch.zeros(n, 3))
    columns = []
    for step in STEP * torch.eye(3 * n).view(-1, n, 3):
        one, other = (areas(camera, objects, sign * step, FINE, False) for sign in (1, -1))
        columns.append((one - other) / (2 * STEP))
    assert isinstance(ours, Tensor)
    return ours, torch.stack(columns, dim=-1).view(n + 1, n, 3)


@pytest.mark.parametrize("side", [(0.0, 25.0), (50.0, -35.0), (140.0, 60.0)])
@pytest.mark.parametrize("name", ["sphere1", "sphere5", "torus", "cube"])
def test_the_derivative_of_coverage_is_that_of_the_area(name: str, side: tuple[float, float]) -> None:
    """Within 10% by scale and by translation of an object that the picture's border cuts, so that both matter."""
    camera = orbit(side[0], elevation=side[1])
    right, up = camera.pose[0, :3, 0], camera.pose[0, :3, 1]
    vertices, faces = surface(name)
    ours, reference = derivatives(camera, [((0.7 * vertices, faces), 0.75 * right - 0.6 * up)])
    error = (ours - reference)[1, 0] / reference[1, 0]
    large = reference[1, 0].abs() > 0.1 * reference[1, 0].abs().max()
    assert large.sum() >= 2
    assert error[large].abs().max() < 0.1
    # What is near zero is so to within 3% of the largest.
    assert bool(((ours - reference)[1, 0][~large].abs() < 0.03 * reference.abs().max()).all())


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("sphere5", "torus"), ("torus", "sphere5"), ("cube", "sphere1"), ("sphere1", "cube")]
)
def test_the_derivatives_of_two_objects_of_which_one_hides_part_of_the_other(names: tuple[str, str]) -> None:
    front = surface(names[0])[0] * 0.4, surface(names[0])[1]
    back = surface(names[1])[0] * 0.7, surface(names[1])[1]
    objects = [(front, torch.tensor([0.25, 0.1, 0.7])), (back, torch.tensor([-0.1, 0, -0.3]))]
    ours, reference = derivatives(orbit(0.0, 20.0, -25.0, elevation=15.0), objects)
    assert (ours[0, 1] == 0).all()  # what is behind changes nothing of what is in front
    assert reference[1, 0].abs().max() > 0.05  # the front hides part of the back
    large = reference.abs() > 0.1 * reference.abs().max()
    assert ((ours - reference) / reference)[large].abs().max() < 0.1
    assert (ours - reference)[~large].abs().max() < 0.03 * reference.abs().max()


def test_without_antialiasing_coverage_has_no_derivative() -> None:
    vertices = surface("sphere2")[0].requires_grad_()
    assert not rasterize(seen(orbit(0.0), (vertices, surface("sphere2")[1]), 16, 16), 16, 16).mask.requires_grad


def test_antialiased_coverage_is_the_area() -> None:
    """The mean error of the area of an antialiased mask of 48 x 48 pixels is at most a tenth of the plain one's."""
    plain, smooth = [], []
    vertices, faces = surface("sphere3")
    for i in range(12):
        mesh = (vertices * (0.5 + 0.017 * i), faces)
        exact = areas(orbit(0.0), [(mesh, torch.zeros(3))], torch.zeros(1, 3), FINE, False)[1]
        one, other = (areas(orbit(0.0), [(mesh, torch.zeros(3))], torch.zeros(1, 3), 48, s)[1] for s in (False, True))
        plain.append((one - exact).abs())
        smooth.append((other - exact).abs())
    assert torch.stack(smooth).mean() < 0.2 * torch.stack(plain).mean()


def test_the_blend_of_a_vertical_border() -> None:
    """A square whose right border initially lies a quarter of a pixel inside the fourth column."""
    camera = orbit(0.0, elevation=0.0, radius=2.0, fov=90.0)  # at distance 2 a pixel of 8 is half a unit wide
    vertices, faces = surface("square")
    wide = vertices * torch.tensor([1.0, 9, 1]) - torch.tensor([3.0, 0, 0])
    for border, expected in ((0.125, (1, 0.25, 0)), (0.375, (1, 0.75, 0)), (0.5, (1, 1, 0))):
        placed = (wide + torch.tensor([2 + border, 0, 0])).requires_grad_()
        scene = seen(camera, (placed, faces), 8, 8)
        fragments = rasterize(scene, 8, 8)
        mask = antialias(fragments.mask, fragments, scene)[0, 0]
        torch.testing.assert_close(mask[:, 3:6], torch.tensor(expected, dtype=mask.dtype).expand(8, 3))
        # The row's coverage grows by two pixels a unit: half of it by each of the border's two ends, on average.
        (gradient,) = torch.autograd.grad(mask.sum(), placed)
        torch.testing.assert_close(gradient[1:3, 0].sum(), torch.tensor(16.0))


def test_winding_does_not_matter() -> None:
    vertices, faces = surface("torus")
    mixed = torch.where((torch.arange(len(faces)) % 3 == 0)[:, None], faces.flip(1), faces)
    masks = []
    for triangles in (faces, mixed):
        scene = seen(orbit(30.0, elevation=50.0), (vertices, triangles), 40, 56)
        fragments = rasterize(scene, 40, 56)
        masks.append(antialias(fragments.mask, fragments, scene))
    torch.testing.assert_close(*masks)


def test_hidden_silhouettes_do_not_blend() -> None:
    """A ball behind a wall or inside another ball changes neither the picture nor its derivative."""
    ball, wall = surface("sphere3"), surface("square")
    hidden = (0.4 * ball[0]).requires_grad_()
    for outer in ((3 * wall[0] + torch.tensor([0.0, 0, 0.6]), wall[1]), (0.8 * ball[0], ball[1])):
        vertices, faces = torch.cat([outer[0], hidden]), torch.cat([outer[1], ball[1] + len(outer[0])])
        scene = seen(orbit(0.0), (vertices, faces), 40, 56)
        fragments = rasterize(scene, 40, 56)
        colors = torch.cat([torch.zeros(len(outer[0]), 1), torch.ones(len(hidden), 1)])
        image = torch.cat([interpolate(fragments, scene.faces, colors), fragments.mask], dim=1)
        smooth = antialias(image, fragments, scene)
        assert smooth[:, 0].abs().sum() == 0
        assert torch.autograd.grad(smooth.sum(), hidden)[0].abs().sum() == 0


def test_the_inside_of_a_surface_is_untouched() -> None:
    """Only pixels at a silhouette change; elsewhere the picture of a ball is the same."""
    mesh = surface("sphere5")
    scene = seen(orbit(0.0), mesh, 64, 64)
    fragments = rasterize(scene, 64, 64)
    image = interpolate(fragments, scene.faces, mesh[0])
    changed = (antialias(image, fragments, scene) != image).any(dim=1)[0]
    mask = fragments.mask
    neighbors = torch.nn.functional.max_pool2d(mask, 3, 1, 1) + torch.nn.functional.max_pool2d(-mask, 3, 1, 1)
    assert changed.any()
    assert not (changed & (neighbors[0, 0] == 0)).any()
