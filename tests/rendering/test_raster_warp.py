"""Both backends of the rasterizer find the same faces, so that pictures and gradients agree."""

import subprocess
import sys

import pytest
import torch
from rendering.shapes import orbit, seen, surface
from torch import Tensor

from scoredistill.rendering import Backend, Scene, antialias, interpolate, rasterize
from scoredistill.rendering.camera import Camera

pytest.importorskip("warp")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def scene_of(name: str, dtype: torch.dtype, device: str, radius: float = 2.6) -> tuple[Scene, Tensor]:
    camera = orbit(0.0, 47.0, 190.0, elevation=33.0, radius=radius, fov=60.0)
    vertices, faces = surface(name)
    points = (0.8 * vertices).to(device, dtype).requires_grad_()
    camera = Camera(camera.pose.to(device, dtype), camera.fov.to(device, dtype))
    return seen(camera, (points, faces.to(device)), 90, 128), points


def picture(scene: Scene, points: Tensor, backend: Backend) -> tuple[Tensor, Tensor, Tensor]:
    """The visible faces, a picture of positions, mask and depth, and its gradient."""
    fragments = rasterize(scene, 90, 128, backend)
    places = interpolate(fragments, scene.faces, points.repeat(3, 1))
    image = antialias(torch.cat([places, fragments.mask, fragments.depth[:, None]], dim=1), fragments, scene)
    (gradient,) = torch.autograd.grad(image.square().sum(), points, retain_graph=True)
    return fragments.face, image, gradient


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["sphere0", "sphere5", "torus", "cube"])
def test_in_single_precision_the_backends_agree_to_the_last_bit(name: str, device: str) -> None:
    """Both backends round every operation equally; on CUDA, at most one pixel in 10,000 may see another face."""
    scene, points = scene_of(name, torch.float32, device)
    (ours, image, gradient), (theirs, *others) = (picture(scene, points, backend) for backend in ("torch", "warp"))
    if device == "cpu":
        assert torch.equal(ours, theirs)
    assert (ours != theirs).double().mean() < 1e-4
    same = (ours == theirs)[:, None]
    torch.testing.assert_close(image * same, others[0] * same)
    assert (gradient - others[1]).norm() < 1e-3 * gradient.norm()


@pytest.mark.parametrize("name", ["sphere5", "torus"])
def test_in_double_precision_they_differ_at_ties_only(name: str) -> None:
    """Warp computes visibility in single precision: at most one pixel in 10,000 differs in mask or face."""
    scene, points = scene_of(name, torch.float64, "cpu")
    (ours, image, gradient), (theirs, *others) = (picture(scene, points, backend) for backend in ("torch", "warp"))
    assert ((ours >= 0) != (theirs >= 0)).double().mean() < 1e-4
    assert (ours != theirs).double().mean() < 1e-4
    assert (image - others[0]).abs().mean() < 1e-4
    assert (gradient - others[1]).norm() < 1e-2 * gradient.norm()


def test_faces_across_the_near_plane() -> None:
    scene, points = scene_of("torus", torch.float32, "cpu", radius=0.6)
    (ours, *_), (theirs, *_) = (picture(scene, points, backend) for backend in ("torch", "warp"))
    assert torch.equal(ours, theirs)
    assert (ours >= 0).double().mean() > 0.3


def test_an_empty_scene() -> None:
    empty = Scene(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 2)
    assert rasterize(empty, 8, 9, "warp").mask.shape == (2, 1, 8, 9)


@pytest.mark.slow
def test_auto_selects_torch_on_a_cpu_and_warp_prints_nothing() -> None:
    scene = (
        "import sys, torch\n"
        "from scoredistill.rendering import Scene, rasterize\n"
        "z = torch.zeros\n"
        "scene = Scene(z(3, 4), z(1, 3, dtype=torch.int64), z(1, dtype=torch.int64), 1)\n"
        "rasterize(scene, 4, 4)\n"
        "assert 'warp' not in sys.modules\n"
        "rasterize(scene, 4, 4, 'warp')\n"
        "assert 'warp' in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", scene], check=True, capture_output=True, text=True)
    assert run.stdout == ""
