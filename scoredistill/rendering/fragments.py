"""What the pixels show: faces, where on them, how far away; and attributes of the vertices there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.scene import Scene, to_pixels
from scoredistill.rendering.visibility import edge_functions


@dataclass(frozen=True)
class Fragments:
    """What each pixel of P pictures shows at its center.

    Args:
        face: (P, H, W) int64 index into the scene's faces, -1 where empty.
        barycentric: (P, H, W, 3) perspective-correct, of the face's corners; 0 where empty.
        depth: (P, H, W) distance along the viewing direction in world units, the clip coordinate w; 0 where empty.
            The distance along the ray of `Camera.rays` is longer by the cosine between ray and viewing direction.
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(P, 1, H, W), 1 where a face is seen, 0 where empty: no gradient, which `antialias` brings."""
        return (self.face >= 0)[:, None].to(self.barycentric.dtype)


def shade(scene: Scene, face: Tensor) -> Fragments:
    """Work out the visible faces' barycentric coordinates and depth, differentiably in `scene.clip`.

    Args:
        scene: P pictures.
        face: (P, H, W) the visible face of each pixel, -1 where empty.
    """
    height, width = face.shape[1:]
    pixel = (face >= 0).flatten().nonzero()[:, 0]
    seen = face.flatten().index_select(0, pixel)
    corners = scene.clip.index_select(0, scene.faces.index_select(0, seen).flatten()).view(-1, 3, 4)
    e = torch.stack(edge_functions(to_pixels(corners, height, width), pixel % width, pixel // width % height), dim=1)
    b = e / e.sum(dim=1, keepdim=True)
    values = torch.cat([b, (b * corners[..., 3]).sum(dim=1, keepdim=True)], dim=1)
    picture = values.new_zeros(face.numel(), 4).index_copy(0, pixel, values).view(*face.shape, 4)
    return Fragments(face, picture[..., :3], picture[..., 3])


def interpolate(fragments: Fragments, scene_faces: Tensor, attributes: Tensor) -> Tensor:
    """Attributes of the vertices at each pixel, sum_i b_i a_i.

    Args:
        fragments: P pictures.
        scene_faces: (F, 3) int64 rows of `attributes`, in the order of the scene's faces; the scene's own, or others
            where attributes change across an edge, as at the seams of a texture.
        attributes: (M, C).

    Returns:
        (P, C, H, W), 0 where empty, differentiable in the attributes and the barycentric coordinates.
    """
    face = fragments.face
    pixel = (face >= 0).flatten().nonzero()[:, 0]
    seen = scene_faces.index_select(0, face.flatten().index_select(0, pixel))
    b = fragments.barycentric.reshape(-1, 3).index_select(0, pixel)
    corners = attributes.index_select(0, seen.flatten()).view(len(pixel), 3, attributes.shape[1])
    values = (b[..., None] * corners).sum(dim=1)
    picture = values.new_zeros(face.numel(), values.shape[1]).index_copy(0, pixel, values)
    return picture.view(*face.shape, attributes.shape[1]).movedim(-1, 1)
