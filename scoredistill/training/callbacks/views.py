"""Rendered views of 3D particles and of the Gallery's variants."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery import Gallery
from scoredistill.teachers.teacher import Teacher

Views = tuple[Tensor, Tensor]
"""Pictures (n, V, 3, H, W) in [-1, 1] and opacities (n, V, H, W) of n scenes from V cameras, on the CPU."""


def particle_views(
    generator: SceneGenerator, teacher: Teacher, camera: Camera, resolution: int, background: Tensor | None = None
) -> Views:
    """Render every particle from every camera. Latent scenes are rendered as in training and decoded by the teacher.

    Args:
        generator: n particles.
        teacher: the teacher of the particles.
        camera: V views.
        resolution: height and width of the pictures.
        background: (3,) color in [-1, 1]; None, and for latent scenes: the generator's background.
    """
    if generator.latents is None:
        render = generator.render(camera, resolution, resolution, background)
        return render.rgb.cpu(), render.opacity.cpu()
    render = generator.render(camera, generator.resolution, generator.resolution)
    with torch.no_grad():
        decoded = torch.cat([teacher.decode(row) for row in render.rgb.flatten(0, 1).split(1)])
    side = (resolution, resolution)
    pictures = interpolate(decoded, side, mode="bilinear", antialias=True).clamp(-1, 1)
    opacity = interpolate(render.opacity, side, mode="bilinear")
    return pictures.unflatten(0, render.opacity.shape[:2]).cpu(), opacity.cpu()


def gallery_views(prompt: str, camera: Camera, resolution: int) -> Views:
    """Render the Gallery's variants of a prompt from V cameras, in the layout of particles."""
    render = Gallery().renders(prompt, camera, resolution, resolution)
    return render.rgb.transpose(0, 1), render.opacity[:, :, 0].transpose(0, 1)
