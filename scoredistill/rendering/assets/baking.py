"""Baking a surface's colors into a texture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scoredistill.rendering.assets.unwrapping import Unwrapped
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.turntable import to_bytes

Colors = Callable[[Tensor], Tensor]
"""From points (P, 3) on a surface in world units to colors (P, 3) in [-1, 1]."""

_BLEED = 1.0
"""Texels by which a chart is extended in the planes of its border faces, because bilinear filtering reads that far."""

_PAIRS = 2**22
"""Maximum number of pairs of a face and a texel in memory, about 500 MB."""

_POINTS = 2**18
"""Maximum number of points in one evaluation of the colors."""


@torch.no_grad()
def bake(mesh: Mesh, layout: Unwrapped, colors: Colors, size: int) -> Tensor:
    """Bake a texture: each texel has the color of the surface point at its center.

    Charts are extended by one texel. Every other texel has the color of the nearest texel of a chart, so that neither
    bilinear filtering nor mipmaps mix in unrelated colors.

    Args:
        mesh: the surface.
        layout: positions of its faces in the texture.
        colors: from points (P, 3) in world units to colors (P, 3) in [-1, 1].
        size: height and width T in texels.

    Returns:
        (T, T, 3) uint8 display values, top row first.

    Raises:
        ValueError: if the texture is so small that no texel's center is in a chart.
    """
    from scipy.ndimage import distance_transform_edt

    texel, face, weight = _texels(layout.uv[layout.faces] * size, size)
    if len(texel) == 0:
        raise ValueError(f"a texture of {size} x {size} texels is too small for this mesh: increase its size")
    corners = mesh.vertices.detach().cpu().double()[layout.source[layout.faces]]
    points = torch.einsum("pc,pcd->pd", weight, corners[face]).to(mesh.vertices)
    values = torch.cat([colors(part).detach().cpu().float() for part in points.split(_POINTS)])
    image = torch.zeros(size * size, 3)
    image[texel] = values.to(image)
    empty = torch.ones(size * size, dtype=torch.bool).index_fill(0, texel, False).view(size, size)
    row, column = distance_transform_edt(empty.numpy(), return_distances=False, return_indices=True)
    filled = image.view(size, size, 3)[torch.from_numpy(row).long(), torch.from_numpy(column).long()]
    return to_bytes(filled.movedim(-1, 0))


def _texels(triangles: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The face that contains each texel's center, or the nearest face within the bleed.

    Args:
        triangles: (F, 3, 2) corners in texels.
        size: T.

    Returns:
        texel (P,) row T + column, ascending; face (P,); barycentric coordinates (P, 3), outside [0, 1] in the bleed.
    """
    depth = triangles.new_full((size * size,), -torch.inf)
    owner = torch.full((size * size,), -1, dtype=torch.long)
    for face, texel in _candidates(triangles, size):
        inside = _depth(triangles[face], _centers(texel, size))
        near = inside > -_BLEED
        face = face[near]
        texel = texel[near]
        inside = inside[near]
        depth = depth.scatter_reduce(0, texel, inside, "amax")
        best = inside == depth[texel]
        owner[texel[best]] = face[best]
    texel = (owner >= 0).nonzero()[:, 0]
    return texel, owner[texel], _barycentric(triangles[owner[texel]], _centers(texel, size))


def _candidates(triangles: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of pairs (face, texel): all centers in the faces' bounding boxes, enlarged by the bleed."""
    low = (triangles.amin(1) - _BLEED - 0.5).ceil().long().clamp(0, size - 1)
    high = (triangles.amax(1) + _BLEED - 0.5).floor().long().clamp(0, size - 1)
    flat = _cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) == 0
    sides = torch.where(flat[:, None], 0, high - low + 1)  # a degenerate face has no interior
    counts = sides.prod(1)
    for block in _blocks(counts):
        face = block.repeat_interleave(counts[block])
        begin = counts[block].cumsum(0) - counts[block]
        place = torch.arange(len(face)) - begin.repeat_interleave(counts[block])
        column = low[face, 0] + place % sides[face, 0]
        yield face, (low[face, 1] + place // sides[face, 0]) * size + column


def _blocks(counts: Tensor) -> list[Tensor]:
    """Blocks of consecutive faces with about `_PAIRS` pairs each."""
    group = (counts.cumsum(0) - 1).clamp(min=0) // _PAIRS
    return list(torch.arange(len(counts)).split(torch.bincount(group).tolist()))


def _centers(texel: Tensor, size: int) -> Tensor:
    return torch.stack([texel % size, texel // size], dim=-1) + 0.5


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _barycentric(triangles: Tensor, points: Tensor) -> Tensor:
    """(P, 3) coordinates of points (P, 2) in triangles (P, 3, 2)."""
    corner, following = triangles.roll(-1, dims=1), triangles.roll(-2, dims=1)
    areas = _cross(following - corner, points[:, None] - corner)
    return areas / areas.sum(1, keepdim=True)


def _depth(triangles: Tensor, points: Tensor) -> Tensor:
    """(P,) distance in texels from a point to the nearest line through a side of its triangle, negative outside."""
    sides = (triangles.roll(-2, dims=1) - triangles.roll(-1, dims=1)).norm(dim=-1)
    heights = _cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]).abs()[:, None] / sides
    return (_barycentric(triangles, points) * heights).amin(1)
