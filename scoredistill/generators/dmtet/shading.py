"""Pictures of n particles' surfaces: what is seen, shaded, with antialiased silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.generators.dmtet.surface import Surface
from scoredistill.rendering import Fragments, Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.picture import composite_over

Trained = Literal["both", "geometry", "texture"]
"""Which parameters are trained; a generator's others are fixed."""

Shading = Literal["albedo", "normals"]
"""What pictures show: the texture, or the outward unit normal's x, y and z in world axes as red, green and blue."""

Albedo = Callable[[Tensor, Tensor], Tensor]
"""Colors (P, 3) of points (P, 3), which are sorted by particle, (P,)."""


@dataclass(frozen=True)
class View:
    """n V pictures of n particles from V cameras, particle-major, before they are shaded.

    Args:
        scene: the triangles of all pictures.
        fragments: what each pixel shows.
        positions, normals: (n V, 3, H, W) of the surface at the pixels' centers in world units and axes, the normals of
            length 1; 0 where empty; differentiable.
        views: V.
    """

    scene: Scene
    fragments: Fragments
    positions: Tensor
    normals: Tensor
    views: int

    @classmethod
    def of(cls, surface: Surface, camera: Camera, height: int, width: int) -> View:
        """Look at every particle from every camera.

        Args:
            surface: in world units.
            camera: V views.
            height, width: of the pictures.
        """
        vertices = surface.vertices.split(surface.vertex_counts)
        attributes = torch.cat([surface.vertices, surface.normals], dim=1).split(surface.vertex_counts)
        meshes = zip(vertices, surface.faces_of(), strict=True)
        scene = Scene.cat([Scene.of(project(camera, v, height, width), faces) for v, faces in meshes])
        fragments = rasterize(scene, height, width)
        rows = torch.cat([each.repeat(len(camera), 1) for each in attributes])
        positions, normals = interpolate(fragments, scene.faces, rows).split(3, dim=1)
        return cls(scene, fragments, positions, normalize(normals, dim=1), len(camera))

    def albedo(self, color: Albedo) -> Tensor:
        """The surface's colors, (n V, 3, H, W), 0 where empty."""
        pictures, height, width = self.fragments.face.shape
        pixel = (self.fragments.face >= 0).flatten().nonzero()[:, 0]
        points = self.positions.movedim(1, -1).reshape(-1, 3).index_select(0, pixel)
        colors = color(points, pixel // (self.views * height * width))
        flat = colors.new_zeros(self.fragments.face.numel(), 3).index_copy(0, pixel, colors)
        return flat.view(pictures, height, width, 3).movedim(-1, 1)

    def composite_over(self, picture: Tensor, background_color: Tensor) -> tuple[Tensor, Tensor]:
        """A picture (n V, 3, H, W), 0 where empty, over a background, blended at silhouettes.

        Args:
            picture: of the surface.
            background_color: (n, V, 1 or H W, 3) the background's colors.

        Returns:
            (n, V, 3, H, W) and opacity (n, V, H, W).
        """
        blended = antialias(torch.cat([picture, self.fragments.mask], dim=1), self.fragments, self.scene)
        color, opacity = blended.unflatten(0, (-1, self.views)).movedim(2, -1).split((3, 1), dim=-1)
        x = composite_over(color.flatten(1, 3), opacity.flatten(1), background_color).view_as(color)
        return x.movedim(-1, 2), opacity[..., 0]

    def distance(self, camera: Camera) -> Tensor:
        """(n, V, H, W) from the camera to what a pixel's center shows, along its ray; 0 where empty."""
        positions = self.positions.unflatten(0, (-1, self.views))
        away = (positions - camera.position[:, :, None, None]).norm(dim=2)
        return torch.where(self.fragments.face.unflatten(0, (-1, self.views)) >= 0, away, 0)


def require_effect(train: Trained, shading: Shading, regularized: bool) -> None:
    """Refuse settings that are unknown, or have no effect.

    Args:
        train, shading: see there.
        regularized: whether the surface is.

    Raises:
        ValueError: that names the setting and the remedy.
    """
    if train not in get_args(Trained) or shading not in get_args(Shading):
        known = f"train is one of {', '.join(get_args(Trained))}, and shading of {', '.join(get_args(Shading))}"
        raise ValueError(f"{known}; got {train} and {shading}")
    if shading == "normals" and train != "geometry":
        raise ValueError(f"normals show no texture: with shading: normals set train: geometry, got {train}")
    if train == "texture" and regularized:
        raise ValueError("regularizers are of the geometry, which train: texture fixes: leave them out")
