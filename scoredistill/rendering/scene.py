"""Projected triangles of several pictures, the input of the rasterizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera


@dataclass(frozen=True)
class Scene:
    """Packed triangles of P pictures, which may show different meshes.

    Neighboring faces should share the rows of their common vertices: an edge whose faces do not share them counts as a
    border of the surface.

    Args:
        clip: (M, 4) clip coordinates of all pictures' vertices, from `project`; differentiable.
        faces: (F, 3) int64 rows of `clip`, in either orientation.
        picture: (F,) int64 picture of each face, in [0, P).
        pictures: P, >= 0.

    Raises:
        ValueError: if the shapes do not match, or the coordinates have half precision.
    """

    clip: Tensor
    faces: Tensor
    picture: Tensor
    pictures: int

    def __post_init__(self) -> None:
        require(">= 0", pictures=self.pictures)
        if self.clip.shape[1:] != (4,) or self.faces.shape[1:] != (3,) or self.picture.shape != self.faces.shape[:1]:
            shapes = ", ".join(str(tuple(value.shape)) for value in (self.clip, self.faces, self.picture))
            raise ValueError(f"a scene needs clip (M, 4), faces (F, 3) and picture (F,), got {shapes}")
        if self.clip.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"clip has dtype {self.clip.dtype}, too imprecise for pixels: set trainer.precision to 32-true, "
                "64-true or bf16-mixed, or project in float32 outside autocast"
            )

    @classmethod
    def of(cls, clip: Tensor, faces: Tensor) -> Scene:
        """One mesh in each of V pictures.

        Args:
            clip: (V, N, 4) from `project`.
            faces: (F, 3) int64 indices of the N vertices.
        """
        views, vertices = clip.shape[:2]
        view = torch.arange(views, device=faces.device)
        rows = faces + vertices * view[:, None, None]
        return cls(clip.flatten(0, 1), rows.flatten(0, 1), view.repeat_interleave(len(faces)), views)

    @classmethod
    def cat(cls, parts: Sequence[Scene]) -> Scene:
        """Concatenate the pictures of several scenes, for example of different particles' meshes."""
        rows = pictures = 0
        faces, picture = [], []
        for part in parts:
            faces.append(part.faces + rows)
            picture.append(part.picture + pictures)
            rows = rows + len(part.clip)
            pictures = pictures + part.pictures
        return cls(torch.cat([part.clip for part in parts]), torch.cat(faces), torch.cat(picture), pictures)


def project(camera: Camera, vertices: Tensor, height: int, width: int, near: float = 1e-2) -> Tensor:
    """Clip coordinates of vertices, consistent with `Camera.rays`.

        (x, y, z, w) = (X / (a tan(fov / 2)), Y / tan(fov / 2), d - 2 near, d),    d = -Z,  a = width / height

    for a point (X, Y, Z) in the camera's axes. d is its distance along the viewing direction. x / w and y / w go from
    -1 to 1 over the picture, to the right and up, and -w <= z is equivalent to d >= near. There is no far plane.

    Args:
        camera: V cameras.
        vertices: (N, 3) world positions, or (V, N, 3) with different positions per camera.
        height, width: size of the pictures in pixels.
        near: distance of the near plane, in world units, > 0; nothing nearer to the camera is drawn.

    Returns:
        (V, N, 4), differentiable in vertices and poses.

    Raises:
        ValueError: if `near` is not positive.
    """
    if near <= 0:
        raise ValueError(f"near must be a distance in front of the camera, > 0; got {near}")
    # Sums instead of a matrix product, because autocast computes matrix products in half precision.
    offset = vertices - camera.position[:, None]
    x, y, z = ((offset[..., None] * camera.pose[:, None, :3, :3]).sum(dim=-2)).unbind(-1)
    half = torch.tan(torch.deg2rad(camera.fov) / 2)[:, None]
    return torch.stack([x * (height / width) / half, y / half, -z - 2 * near, -z], dim=-1)


def to_pixels(clip: Tensor, height: int, width: int) -> Tensor:
    """Clip coordinates (.., 4) to homogeneous pixel coordinates (.., 4): (column w, row w, z + w, w).

    The center of the top left pixel is column 0, row 0. z + w is negative in front of the near plane.
    """
    x, y, z, w = clip.unbind(-1)
    column = 0.5 * (width * x + (width - 1) * w)
    row = 0.5 * ((height - 1) * w - height * y)
    return torch.stack([column, row, z + w, w], dim=-1)
