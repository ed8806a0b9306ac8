"""3D particles, and the Gallery's variants, as pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery import Gallery
from scoredistill.teachers.teacher import Teacher

Views = tuple[Tensor, Tensor]
"""Pictures (n, V, 3, H, W) in [-1, 1] and opacities (n, V, H, W) of n things from V cameras, on the CPU."""


def particle_views(
    generator: SceneGenerator, teacher: Teacher, camera: Camera, resolution: int, background: Tensor | None = None
) -> Views:
    """Every particle from every camera. Scenes of latents are rendered as in training and decoded by the teacher.

    Args:
        generator: n particles.
        teacher: theirs.
        camera: V views.
        resolution: height and width of the pictures.
        background: (3,) color in [-1, 1]; None: the generator's own, as always of latents.
    """
    if generator.latents is None:
        seen = generator.render(camera, resolution, resolution, background)
        return seen.rgb.cpu(), seen.opacity.cpu()
    seen = generator.render(camera, generator.resolution, generator.resolution)
    with torch.no_grad():
        decoded = torch.cat([teacher.decode(row) for row in seen.rgb.flatten(0, 1).split(1)])
    side = (resolution, resolution)
    pictures = interpolate(decoded, side, mode="bilinear", antialias=True).clamp(-1, 1)
    opacity = interpolate(seen.opacity, side, mode="bilinear")
    return pictures.unflatten(0, seen.opacity.shape[:2]).cpu(), opacity.cpu()


def gallery_views(prompt: str, camera: Camera, resolution: int) -> Views:
    """The Gallery's variants of a prompt from V cameras, as particles."""
    seen = Gallery().renders(prompt, camera, resolution, resolution)
    return seen.rgb.transpose(0, 1), seen.opacity[:, :, 0].transpose(0, 1)
