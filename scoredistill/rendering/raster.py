"""Differentiable rasterization of triangles: visibility, attributes and antialiased silhouettes.

    scene = Scene.of(project(camera, mesh.vertices, height, width), mesh.faces)
    fragments = rasterize(scene, height, width)
    normals = interpolate(fragments, scene.faces, normals_of_all_pictures)
    picture = antialias(torch.cat([normals, fragments.mask], dim=1), fragments, scene)

The backend only determines the visible face of each pixel. All quantities with a gradient are computed from that in
plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from scoredistill.rendering.scene import Scene, to_pixels
from scoredistill.rendering.visibility import boxes, edge_functions, nearest_faces


@dataclass(frozen=True)
class Fragments:
    """The visible face at the center of each pixel of P pictures.

    Args:
        face: (P, H, W) int64 index into the scene's faces, -1 in empty pixels.
        barycentric: (P, H, W, 3) perspective-correct barycentric coordinates on the face; 0 in empty pixels.
        depth: (P, H, W) distance along the viewing direction in world units, the clip coordinate w; 0 in empty pixels.
            The distance along the ray of `Camera.rays` is this divided by the cosine between ray and viewing direction.
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(P, 1, H, W), 1 where a face is visible, else 0. It has no gradient; `antialias` adds one."""
        return (self.face >= 0)[:, None].to(self.barycentric.dtype)


def shade(scene: Scene, face: Tensor) -> Fragments:
    """Compute the visible faces' barycentric coordinates and depth, differentiable in `scene.clip`.

    Args:
        scene: P pictures.
        face: (P, H, W) visible face of each pixel, -1 in empty pixels.
    """
    height, width = face.shape[1:]
    pixel = (face >= 0).flatten().nonzero()[:, 0]
    visible = face.flatten().index_select(0, pixel)
    corners = scene.clip.index_select(0, scene.faces.index_select(0, visible).flatten()).view(-1, 3, 4)
    e = torch.stack(edge_functions(to_pixels(corners, height, width), pixel % width, pixel // width % height), dim=1)
    b = e / e.sum(dim=1, keepdim=True)
    values = torch.cat([b, (b * corners[..., 3]).sum(dim=1, keepdim=True)], dim=1)
    picture = values.new_zeros(face.numel(), 4).index_copy(0, pixel, values).view(*face.shape, 4)
    return Fragments(face, picture[..., :3], picture[..., 3])


def interpolate(fragments: Fragments, scene_faces: Tensor, attributes: Tensor) -> Tensor:
    """Attributes of the vertices at each pixel, sum_i b_i a_i.

    Args:
        fragments: P pictures.
        scene_faces: (F, 3) int64 rows of `attributes`, in the order of the scene's faces: the scene's faces, or others
            if attributes change across an edge, as at the seams of a texture.
        attributes: (M, C).

    Returns:
        (P, C, H, W), 0 in empty pixels, differentiable in the attributes and the barycentric coordinates.
    """
    face = fragments.face
    pixel = (face >= 0).flatten().nonzero()[:, 0]
    rows = scene_faces.index_select(0, face.flatten().index_select(0, pixel))
    b = fragments.barycentric.reshape(-1, 3).index_select(0, pixel)
    corners = attributes.index_select(0, rows.flatten()).view(len(pixel), 3, attributes.shape[1])
    values = (b[..., None] * corners).sum(dim=1)
    picture = values.new_zeros(face.numel(), values.shape[1]).index_copy(0, pixel, values)
    return picture.view(*face.shape, attributes.shape[1]).movedim(-1, 1)


Backend = Literal["auto", "torch", "warp"]


def rasterize(scene: Scene, height: int, width: int, backend: Backend = "auto") -> Fragments:
    """Find the visible face at each pixel's center.

    Faces are visible from both sides. The part of a face beyond the near plane of `project` is drawn. Degenerate faces,
    and faces with coordinates that are not finite, are not drawn. Depths are compared in single precision; of faces at
    equal depth the first one is visible.

    Args:
        scene: P pictures.
        height, width: size of the pictures in pixels, >= 1.
        backend: "torch" runs on every device, "warp" (package warp-lang) is faster; "auto" uses warp on CUDA if it is
            installed, else torch. Both give the same faces except for ties.

    Returns:
        Fragments, differentiable in `scene.clip`.

    Raises:
        ValueError: for an empty picture or an unknown backend.
        ImportError: if warp is requested and not installed.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least one pixel, got height {height} and width {width}")
    if backend not in ("auto", "torch", "warp"):
        raise ValueError(f"backend must be auto, torch or warp; got {backend!r}")
    warp = backend == "warp" or (backend == "auto" and scene.clip.is_cuda and _warp_installed())
    with torch.no_grad():
        corners = to_pixels(scene.clip, height, width)
        corners = corners.index_select(0, scene.faces.flatten()).view(-1, 3, 4)
        box = boxes(corners, height, width)
        find = _warp_nearest_faces() if warp else nearest_faces
        face = find(corners, box, scene.picture, scene.pictures, height, width)
    return shade(scene, face)


def _warp_nearest_faces() -> Callable[[Tensor, Tensor, Tensor, int, int, int], Tensor]:
    try:
        from scoredistill.rendering import visibility_warp
    except ImportError as error:
        raise ImportError('backend "warp" needs warp-lang: install scoredistill[mesh], or use "torch"') from error
    return visibility_warp.nearest_faces


@cache
def _warp_installed() -> bool:
    return find_spec("warp") is not None
