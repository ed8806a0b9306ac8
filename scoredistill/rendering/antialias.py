"""Antialiased silhouettes, which make coverage and occlusion differentiable in the vertices.

If a silhouette edge passes between the centers of two neighboring pixels, I on the side of its surface and O on the
other, at a distance t in (0, 1) from I, it moves the border between their colors:

    O += (t - 1/2) (c_I - c_O)  if t > 1/2,    I += (t - 1/2) (c_I - c_O)  otherwise

Edges steeper than 45 degrees blend pairs of horizontal neighbors, flatter edges vertical neighbors, so that each
part of a silhouette is counted once. As a function of t, the sum over a picture is then a sum of strips of one pixel
width, whose derivative is that of the area.

"Modular Primitives for High-Performance Differentiable Rendering" (2020), arXiv:2011.03277, section 3.5. That method
only uses the edges of faces that are visible at pixels' centers, which misses most of a silhouette if faces are smaller
than pixels. Here all silhouette edges are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.raster import Fragments
from scoredistill.rendering.scene import Scene, to_pixels
from scoredistill.rendering.visibility import EMPTY, edge_functions, pack, unpack


@dataclass(frozen=True)
class Silhouettes:
    """E edges with the surface on one side only, each from a vertex `edge[:, 0]` to `edge[:, 1]`.

    Args:
        edge: (E, 2) rows of the scene's vertices, both beyond the near plane.
        side: (E,) 1.0 if the surface is to the left of the direction from the first to the second vertex, in a picture
            whose y axis points up, and -1.0 if it is to the right.
        depth: (E, 2) smallest and largest depth w of the corners of the edge's faces.
        picture: (E,) the edge's picture.
    """

    edge: Tensor
    side: Tensor
    depth: Tensor
    picture: Tensor


def facing(corners: Tensor) -> Tensor:
    """Orientation of faces in the picture: 1 counter-clockwise, -1 clockwise, 0 edge-on or degenerate.

    Args:
        corners: (F, 3, 4) clip coordinates, on either side of the camera.
    """
    # The sign of six times the volume between the camera and the face. Near a silhouette this is a difference of almost
    # equal products, so it needs double precision.
    a, b, c = corners[..., [0, 1, 3]].double().unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1).sign()


@torch.no_grad()
def silhouettes(scene: Scene) -> Silhouettes:
    """Find the edges that have all their faces on one side in the picture.

    These are the borders of open surfaces, and the edges between a face seen from the front and a face seen from the
    back, whether they are visible or hidden. The orientation of faces does not matter. Edges with an end in front of
    the near plane are left out.
    """
    vertices = len(scene.clip)
    start = scene.faces.flatten()
    end = scene.faces.roll(-1, dims=1).flatten()
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    side = facing(scene.clip.index_select(0, scene.faces.flatten()).view(-1, 3, 4))
    side = side.repeat_interleave(3) * (end - start).sign()
    picture = scene.picture.repeat_interleave(3)
    key, order = ((picture * vertices + low) * vertices + high).sort()
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    first = new.nonzero()[:, 0]
    last = torch.cat([first[1:], first.new_full((len(first[:1]),), len(key))]) - 1
    ordered = side.index_select(0, order)
    group = new.cumsum(0) - 1
    total = ordered.new_zeros(len(first)).index_add(0, group, ordered)
    known = ordered.new_zeros(len(first)).index_add(0, group, ordered.abs())
    chosen = ((total.abs() == known) & (known > 0)).nonzero()[:, 0]
    one, other = order.index_select(0, first[chosen]), order.index_select(0, last[chosen])
    edge = torch.stack([low.index_select(0, one), high.index_select(0, one)], dim=1)
    corners = scene.clip[scene.faces[torch.stack([one, other], dim=1) // 3], 3].flatten(1)
    front = (scene.clip[edge][..., 2:].sum(dim=-1) > 0).all(dim=1)
    depth = torch.stack([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    return Silhouettes(edge[front], total[chosen].sign()[front], depth[front], picture[one][front])


TOLERANCE = 1e-5
"""Relative tolerance of the depth, so that an edge is not hidden by its own surface."""

REACH = 2.0
"""Factor of the depth margin in `owned`."""


@dataclass(frozen=True)
class Crossings:
    """K places where silhouette edges pass between neighboring pixels.

    Args:
        edge: (K,) the silhouette edge.
        inside, outside: (K,) the two pixels, counted over all pictures row by row.
        distance: (K,) distance t from the center of the inner pixel, in [0, 1]; differentiable in the vertices.
        depth: (K,) depth of the edge, without gradient.
        pair: (K,) index of the pair of pixels, in [0, 2 P H W).
    """

    edge: Tensor
    inside: Tensor
    outside: Tensor
    distance: Tensor
    depth: Tensor
    pair: Tensor

    def at(self, index: Tensor) -> Crossings:
        """The crossings at an index."""
        fields = (self.edge, self.inside, self.outside, self.distance, self.depth, self.pair)
        return Crossings(*(field[index] for field in fields))


def antialias(image: Tensor, fragments: Fragments, scene: Scene) -> Tensor:
    """Blend a picture at the visible silhouette edges.

    Not blended are intersections of two surfaces, surfaces that are too thin to be visible at any pixel's center,
    edges that cross the near plane, and the picture's border. A pixel between several edges may slightly leave the
    range of the colors.

    Args:
        image: (P, C, H, W) interpolated attributes, the mask, or any function of them.
        fragments: result of `rasterize`.
        scene: the rasterized scene.

    Returns:
        (P, C, H, W), differentiable in the image and in `scene.clip`.
    """
    height, width = image.shape[2:]
    with torch.no_grad():
        outline = silhouettes(scene)
    crossings = walk(scene, outline, height, width)
    crossings = crossings.at(visible(crossings, outline, fragments, scene))
    colors = image.movedim(1, -1).reshape(-1, image.shape[1])
    change = colors.index_select(0, crossings.inside) - colors.index_select(0, crossings.outside)
    change = (crossings.distance - 0.5)[:, None].to(change) * change
    target = torch.where(crossings.distance > 0.5, crossings.outside, crossings.inside)
    return colors.index_add(0, target, change).view(-1, height, width, image.shape[1]).movedim(-1, 1)


def walk(scene: Scene, outline: Silhouettes, height: int, width: int) -> Crossings:
    """Where the edges cross the lines through pixels' centers: rows for steep edges, columns for flat ones."""
    ends = scene.clip.index_select(0, outline.edge.flatten())
    ends = to_pixels(ends, height, width).view(-1, 2, 4)
    w = ends[..., 3]
    place = ends[..., :2] / ends[..., 3:]
    vector = (place[:, 1] - place[:, 0]).detach()
    steep = vector[:, 1].abs() >= vector[:, 0].abs()
    # "Along" is the coordinate from line to line, "across" the coordinate within a line.
    along, across = (torch.where(steep[:, None], place[..., i], place[..., 1 - i]) for i in (1, 0))
    lines = torch.where(steep, height, width).to(w)
    # An edge includes a line through its first vertex, and excludes a line through its last one.
    first = torch.minimum(along.detach().amin(dim=1).ceil().clamp(min=0), lines)
    count = (torch.minimum(along.detach().amax(dim=1).ceil(), lines) - first).clamp(min=0).long()
    edge = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    nth = torch.arange(len(edge), device=edge.device) - (count.cumsum(0) - count)[edge]
    line = first[edge] + nth
    from_, to = along[edge].unbind(1)
    share = (line - from_) / (to - from_)
    x = torch.lerp(across[edge, 0], across[edge, 1], share)
    depth = 1 / torch.lerp(1 / w[edge, 0], 1 / w[edge, 1], share).detach()
    # y points down here, so the surface is on the right of a steep edge that goes down if `Silhouettes` has it on the
    # left.
    ascending = outline.side * torch.where(steep, vector[:, 1].sign(), vector[:, 0].sign().neg()) > 0
    return _pairs(edge, line.long(), x, depth, steep[edge], ascending[edge], outline.picture[edge], height, width)


def _pairs(
    edge: Tensor, line: Tensor, x: Tensor, depth: Tensor, steep: Tensor, ascending: Tensor, picture: Tensor,
    height: int, width: int,
) -> Crossings:  # fmt: skip
    """Find the pixels on both sides of crossings at x on a line; `ascending`: the surface is at larger x."""
    low = x.detach().floor().clamp(-1, max(height, width))
    kept = ((low >= 0) & (low + 1 < torch.where(steep, width, height))).nonzero()[:, 0]
    edge, line, x, low, depth, steep, ascending, picture = (
        value.index_select(0, kept) for value in (edge, line, x, low, depth, steep, ascending, picture)
    )
    column = torch.where(steep, low.long(), line)
    row = torch.where(steep, line, low.long())
    one = (picture * height + row) * width + column
    two = one + torch.where(steep, 1, width)
    distance = torch.where(ascending, low + 1 - x, x - low)
    inside, outside = torch.where(ascending, two, one), torch.where(ascending, one, two)
    return Crossings(edge, inside, outside, distance, depth, 2 * one + steep)


@torch.no_grad()
def visible(crossings: Crossings, outline: Silhouettes, fragments: Fragments, scene: Scene) -> Tensor:
    """The indices of crossings at which the edge is visible.

    The outer pixel must show a surface behind the edge, and the inner pixel the edge's surface. If several edges pass
    between the same pair of pixels, the nearest one blends.
    """
    empty = fragments.face.flatten() < 0
    depth = torch.where(empty, torch.inf, fragments.depth.flatten())
    in_front = (depth[crossings.outside] > crossings.depth * (1 + TOLERANCE)) & ~empty[crossings.inside]
    index = in_front.nonzero()[:, 0]
    index = index[owned(crossings.at(index), outline, fragments, scene)]
    buffer = torch.full((2 * len(depth),), EMPTY, device=depth.device)
    buffer.scatter_reduce_(0, crossings.pair[index], pack(crossings.depth[index], index), "amin")
    return index[unpack(buffer)[crossings.pair[index]] == index]


def owned(crossings: Crossings, outline: Silhouettes, fragments: Fragments, scene: Scene) -> Tensor:
    """Whether the inner pixels show the edges' surface, and not one in front of it or far behind it.

    The depth of the visible face, extrapolated to the edge, must be within the depth range of the edge's faces plus a
    margin: a round surface deviates by about the change of its depth between pixels, a rough one by the size of a
    pixel, here at a field of view of 90 degrees. The margin is REACH times their sum.
    """
    height, width = fragments.face.shape[1:]
    rows = scene.faces.index_select(0, fragments.face.flatten()[crossings.inside])
    corners = to_pixels(scene.clip.index_select(0, rows.flatten()), height, width).view(-1, 3, 4)
    column = crossings.outside % width
    row = crossings.outside // width % height
    e = torch.stack(edge_functions(corners, column, row), dim=1)
    inner = fragments.depth.flatten()[crossings.inside]
    slope = (e * corners[..., 3]).sum(dim=1) / e.sum(dim=1) - inner
    depth = inner + crossings.distance * slope
    nearest, farthest = (depths[crossings.edge] for depths in outline.depth.unbind(1))
    margin = REACH * (slope.abs() + 2 * crossings.depth / height)
    return (depth >= nearest - margin) & (depth <= farthest + margin)
