"""Rendering of surfaces: rasterization, shading and antialiased silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.generators.dmtet.surface import Surface
from scoredistill.rendering import Fragments, Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera, composite_over

Trained = Literal["both", "geometry", "texture"]
"""The trained parameters; the others are fixed."""

Shading = Literal["albedo", "normals"]
"""Content of the pictures: the texture, or the outward unit normals, with x, y, z in world axes as red, green, blue."""

Albedo = Callable[[Tensor, Tensor], Tensor]
"""From points (P, 3), sorted by particle, and their particles (P,) to colors (P, 3)."""


@dataclass(frozen=True)
class View:
    """n V unshaded pictures of n particles from V cameras, particle-major.

    Args:
        scene: the triangles of all pictures.
        fragments: the visible face of each pixel.
        positions, normals: (n V, 3, H, W) positions and unit normals of the surface at the pixels' centers, in world
            units and axes; 0 in empty pixels; differentiable.
        views: V.
    """

    scene: Scene
    fragments: Fragments
    positions: Tensor
    normals: Tensor
    views: int

    @classmethod
    def of(cls, surface: Surface, camera: Camera, height: int, width: int) -> View:
        """Rasterize every particle from every camera.

        Args:
            surface: surfaces in world units.
            camera: V views.
            height, width: size of the pictures in pixels.
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
        """The surface's colors, (n V, 3, H, W), 0 in empty pixels."""
        pictures, height, width = self.fragments.face.shape
        pixel = (self.fragments.face >= 0).flatten().nonzero()[:, 0]
        points = self.positions.movedim(1, -1).reshape(-1, 3).index_select(0, pixel)
        colors = color(points, pixel // (self.views * height * width))
        flat = colors.new_zeros(self.fragments.face.numel(), 3).index_copy(0, pixel, colors)
        return flat.view(pictures, height, width, 3).movedim(-1, 1)

    def composite_over(self, picture: Tensor, background_color: Tensor) -> tuple[Tensor, Tensor]:
        """Composite a picture of the surface over a background, with antialiased silhouettes.

        Args:
            picture: (n V, 3, H, W), 0 in empty pixels.
            background_color: (n, V, 1 or H W, 3).

        Returns:
            colors (n, V, 3, H, W) and opacity (n, V, H, W).
        """
        blended = antialias(torch.cat([picture, self.fragments.mask], dim=1), self.fragments, self.scene)
        color, opacity = blended.unflatten(0, (-1, self.views)).movedim(2, -1).split((3, 1), dim=-1)
        x = composite_over(color.flatten(1, 3), opacity.flatten(1), background_color).view_as(color)
        return x.movedim(-1, 2), opacity[..., 0]

    def distance(self, camera: Camera) -> Tensor:
        """(n, V, H, W) distance from the camera to the surface along each pixel's ray; 0 in empty pixels."""
        positions = self.positions.unflatten(0, (-1, self.views))
        distance = (positions - camera.position[:, :, None, None]).norm(dim=2)
        return torch.where(self.fragments.face.unflatten(0, (-1, self.views)) >= 0, distance, 0)


def require_effect(train: Trained, shading: Shading, regularized: bool) -> None:
    """Check that settings are known and have an effect.

    Args:
        train, shading: the settings of `DMTet`.
        regularized: whether there are regularizers.

    Raises:
        ValueError: if a setting is unknown or has no effect.
    """
    if train not in get_args(Trained):
        raise ValueError(f"train: choose {', '.join(get_args(Trained))}; got {train}")
    if shading not in get_args(Shading):
        raise ValueError(f"shading: choose {', '.join(get_args(Shading))}; got {shading}")
    if shading == "normals" and train != "geometry":
        raise ValueError(f"shading: normals does not render the texture: set train: geometry, got {train}")
    if train == "texture" and regularized:
        raise ValueError("regularizers act on the geometry, which is fixed with train: texture: leave them out")
