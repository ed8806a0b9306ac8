"""UV unwrapping: cutting a surface into flat charts that are packed into a square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh

_GAP = 4
"""Texels between charts: each chart is extended by one, and bilinear filtering reads one further."""


@dataclass(frozen=True)
class Unwrapped:
    """Positions of a mesh's faces in a texture.

    Args:
        source: (N',) the mesh's vertex for each new vertex; vertices on seams are duplicated.
        faces: (F, 3) int64 indices of the new vertices, in the order of the mesh's faces.
        uv: (N', 2) in [0, 1], from the texture's upper left corner.
    """

    source: Tensor
    faces: Tensor
    uv: Tensor


def unwrap(mesh: Mesh, size: int) -> Unwrapped:
    """Cut a mesh into charts with xatlas and pack them at one scale without overlaps.

    Args:
        mesh: a mesh with at least one face.
        size: height and width of the texture in texels, which determines the gaps between charts.

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
    packing.resolution = size
    packing.padding = _GAP
    atlas.generate(pack_options=packing)
    source, faces, uv = (
        torch.tensor(part.astype(kind)) for part, kind in zip(atlas[0], ("i8", "i8", "f8"), strict=True)
    )
    # xatlas does not match the size exactly; the longer side of its result becomes the texture's side.
    sides = torch.tensor([atlas.width, atlas.height], dtype=torch.float64)
    return Unwrapped(source, faces, uv * sides / sides.max())
