"""Visibility, the visible face of each pixel: a z-buffer in plain PyTorch, without gradients.

A pixel's center is inside a face if the face's edge functions e_i all have the same sign. They are twice the signed
areas of the triangles between the center and each edge, in homogeneous coordinates. With corners (X, Y, w) relative to
the pixel,

    e_0 = X_1 Y_2 - Y_1 X_2 and so on,    b_i = e_i / (e_0 + e_1 + e_2),    depth = sum_i b_i w_i

b_i are perspective-correct barycentric coordinates. There is no division by w, so a face that extends behind the camera
needs no clipping: its pixels are drawn where they are beyond the near plane.

"Triangle Scan Conversion using 2D Homogeneous Coordinates" (1997), doi:10.1145/258694.258723.

Neighboring faces evaluate their shared edge with the same numbers and opposite signs, so that no pixel falls between
them. A center on an edge is inside both faces; the nearer one is visible, and the first one at equal depth.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

CANDIDATES = 2**17  # pairs of face and pixel in one test, about 150 bytes each
EMPTY = torch.iinfo(torch.int64).max
THINNEST = 1e-4  # pixels; narrower faces may be rounding errors, and their derivatives are unbounded
MARGIN = 1e-2  # pixels by which a box is enlarged, far above the rounding errors of its corners


def pack(depth: Tensor, index: Tensor) -> Tensor:
    """Keys that sort by depth, > 0, then by index, < 2^32: the bits of positive floats sort like their values."""
    return (depth.float().contiguous().view(torch.int32).long() << 32) | index


def unpack(key: Tensor) -> Tensor:
    """The index of each key, -1 for EMPTY."""
    return torch.where(key == EMPTY, -1, key & 0xFFFFFFFF)


def edge_functions(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The edge functions at pixels' centers.

    Args:
        corners: (K, 3, 4) from `to_pixels`.
        column, row: (K,) integers.

    Returns:
        e_0, e_1, e_2, (K,) each, for the edges opposite each corner, in square pixels times world units squared.
    """
    w = corners[..., 3]
    x = (corners[..., 0] - column.to(w)[:, None] * w).unbind(1)
    y = (corners[..., 1] - row.to(w)[:, None] * w).unbind(1)
    return x[1] * y[2] - y[1] * x[2], x[2] * y[0] - y[2] * x[0], x[0] * y[1] - y[0] * x[1]


def boxes(corners: Tensor, height: int, width: int) -> Tensor:
    """The bounding box of each face in pixels, which is empty for faces that are degenerate or edge-on.

    Args:
        corners: (F, 3, 4) from `to_pixels`.
        height, width: size of the pictures in pixels.

    Returns:
        (F, 4) int64: left, top, columns and rows; an empty box has 0 columns or rows.
    """
    near = corners[..., 2]
    front = near >= 0
    points = torch.where(front[..., None], corners[..., :2] / corners[..., 3:], torch.nan)
    if not front.all():  # the crossings of edges with the near plane also bound the visible part
        following = corners.roll(-1, dims=1)
        share = (near / (near - following[..., 2]))[..., None]
        crossing = corners + share * (following - corners)
        crosses = front != front.roll(-1, dims=1)
        crossing = torch.where(crosses[..., None], crossing[..., :2] / crossing[..., 3:], torch.nan)
        points = torch.cat([points, crossing], dim=1)
    # Invisible corners are NaN. fmin and fmax ignore them, and a face with no other corners has NaN bounds.
    low = reduce(torch.fmin, points.unbind(1)) - MARGIN
    high = reduce(torch.fmax, points.unbind(1)) + MARGIN
    one, other = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    area = (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]).abs()
    thin = area <= THINNEST * (high - low).amax(dim=1)  # False if a corner is NaN
    drawn = (low <= high).all(dim=1) & ~thin
    size = corners.new_tensor([width, height])
    first = torch.minimum(low.ceil().clamp(min=0), size)
    last = torch.minimum(high.floor(), size - 1).clamp(min=-1)
    box = torch.cat([first, (last - first + 1).clamp(min=0)], dim=1)
    return torch.where(drawn[:, None], box, 0.0).long()


def nearest_faces(corners: Tensor, box: Tensor, picture: Tensor, pictures: int, height: int, width: int) -> Tensor:
    """The visible face of each pixel.

    All pixels of each face's box are tested, CANDIDATES at a time. Beyond the inputs and the result this needs about
    20 MB for faces of any size.

    Args:
        corners: (F, 3, 4) from `to_pixels`.
        box: (F, 4) from `boxes`.
        picture: (F,) picture of each face.
        pictures: P.
        height, width: size of the pictures in pixels.

    Returns:
        (P, height, width) int64, -1 in empty pixels.
    """
    buffer = torch.full((pictures * height * width,), EMPTY, device=corners.device)
    count = box[:, 2] * box[:, 3]
    end = count.cumsum(0)
    total = int(end[-1]) if len(end) else 0
    for start in range(0, total, CANDIDATES):
        stop = min(start + CANDIDATES, total)
        first, last = torch.searchsorted(end, end.new_tensor([start, stop - 1]), right=True).tolist()
        part = slice(first, last + 1)
        here = end[part].clamp(max=stop) - (end[part] - count[part]).clamp(min=start)
        face = torch.repeat_interleave(torch.arange(first, last + 1, device=end.device), here, output_size=stop - start)
        nth = torch.arange(start, stop, device=end.device) - (end - count).index_select(0, face)
        left, top, columns, _ = box.index_select(0, face).unbind(1)
        row = nth.div(columns, rounding_mode="floor")
        column = left + nth - row * columns
        row = top + row
        inside, depth = _test(corners.index_select(0, face), column, row)
        pixel = (picture.index_select(0, face) * height + row) * width + column
        key = torch.where(inside, pack(depth, face), EMPTY)
        buffer.scatter_reduce_(0, pixel, key, "amin")
    return unpack(buffer).view(pictures, height, width)


def _test(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Whether pixels' centers are inside faces, and the depth there: corners (K, 3, 4), column and row (K,)."""
    e = edge_functions(corners, column, row)
    total = e[0] + e[1] + e[2]
    sign = total.sign()
    inside = (e[0] * sign >= 0) & (e[1] * sign >= 0) & (e[2] * sign >= 0) & (total != 0)
    near, depth = ((e[0] * c[:, 0] + e[1] * c[:, 1] + e[2] * c[:, 2]) / total for c in corners[..., 2:].unbind(-1))
    return inside & (near >= 0), depth
