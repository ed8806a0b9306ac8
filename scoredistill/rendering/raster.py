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
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from scoredistill.rendering.fragments import Fragments, shade
from scoredistill.rendering.scene import Scene, to_pixels
from scoredistill.rendering.visibility import boxes, nearest_faces

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
