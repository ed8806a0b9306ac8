"""UV unwrapping: a surface cut into charts that lie flat, side by side, in a square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh

_GAP = 4
"""Texels between charts: each may be bled by one, and bilinear filtering reaches one further."""


@dataclass(frozen=True)
class Unwrapped:
    """Where a mesh's faces lie in a texture.

    Args:
        source: (N',) vertex of the mesh that each of the new ones is; along seams a vertex is several.
        faces: (F, 3) int64 indices of the new vertices, in the mesh's order.
        uv: (N', 2) in [0, 1], from the texture's upper left corner.
    """

    source: Tensor
    faces: Tensor
    uv: Tensor


def unwrap(mesh: Mesh, size: int) -> Unwrapped:
    """Cut a mesh into charts by xatlas and pack them, all at one scale, so that they do not overlap.

    Args:
        mesh: of at least one face.
        size: height and width of the texture in texels, from which the gaps between the charts follow.

    Raises:
        ImportError: if xatlas is not installed.
    """
    try:
        import xatlas
    except ImportError as error:
        raise ImportError("a texture needs xatlas: install scoredistill[mesh]") from error
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.detach().cpu().float().numpy(), mesh.faces.cpu().int().numpy().astype("uint32"))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, _GAP
    atlas.generate(pack_options=packing)
    source, faces, uv = (
        torch.tensor(part.astype(kind)) for part, kind in zip(atlas[0], ("i8", "i8", "f8"), strict=True)
    )
    # xatlas meets the size only roughly; the longer side of what it has made becomes the texture's.
    sides = torch.tensor([atlas.width, atlas.height], dtype=torch.float64)
    return Unwrapped(source, faces, uv * sides / sides.max())
