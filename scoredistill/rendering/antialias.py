"""Antialiased silhouettes: what makes coverage and occlusion differentiable in the vertices.

A silhouette edge that passes between the centers of two neighboring pixels, I on the side of its surface and O on the
other, at a distance t in (0, 1) from I, moves the border between their colors:

    O += (t - 1/2) (c_I - c_O)  if t > 1/2,    I += (t - 1/2) (c_I - c_O)  otherwise

Edges steeper than 45 degrees blend pairs of horizontal neighbors, flatter ones vertical neighbors, so that each
stretch of silhouette is counted once. The sum over a picture is then, in t, the sum of strips that are one pixel wide,
whose derivative is that of the area.

"Modular Primitives for High-Performance Differentiable Rendering" (2020), arXiv:2011.03277, section 3.5. There only the
edges of faces seen at pixels' centers are looked at, which misses most of a silhouette if faces are smaller than
pixels; here all silhouette edges are walked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.fragments import Fragments
from scoredistill.rendering.scene import Scene, to_pixels
from scoredistill.rendering.silhouettes import Silhouettes, silhouettes
from scoredistill.rendering.visibility import EMPTY, edge_functions, pack, unpack

TOLERANCE = 1e-5  # of the depth, relative: an edge is not hidden by its own surface
REACH = 2.0


@dataclass(frozen=True)
class Crossings:
    """K places where silhouette edges pass between neighboring pixels.

    Args:
        edge: (K,) the silhouette edge.
        inside, outside: (K,) the two pixels, counted over all pictures row by row.
        distance: (K,) t, from the center of the inner pixel, in [0, 1]; differentiable in the vertices.
        depth: (K,) of the edge there; no gradient.
        pair: (K,) number of the pair of pixels, in [0, 2 P H W).
    """

    edge: Tensor
    inside: Tensor
    outside: Tensor
    distance: Tensor
    depth: Tensor
    pair: Tensor

    def at(self, index: Tensor) -> Crossings:
        """Some of the crossings."""
        fields = (self.edge, self.inside, self.outside, self.distance, self.depth, self.pair)
        return Crossings(*(field[index] for field in fields))


def antialias(image: Tensor, fragments: Fragments, scene: Scene) -> Tensor:
    """Blend a picture over the visible silhouette edges.

    Not blended are lines where two surfaces cut through each other, surfaces too thin to be seen at any pixel's
    center, edges cut by the near plane, and the picture's own border. A pixel between several edges may leave the
    range of the colors a little.

    Args:
        image: (P, C, H, W) of the fragments: interpolated attributes, the mask, any function of them.
        fragments: of `rasterize`.
        scene: that was rasterized.

    Returns:
        (P, C, H, W), differentiable in the image and in `scene.clip`.
    """
    height, width = image.shape[2:]
    with torch.no_grad():
        outline = silhouettes(scene)
    found = walk(scene, outline, height, width)
    found = found.at(visible(found, outline, fragments, scene))
    colors = image.movedim(1, -1).reshape(-1, image.shape[1])
    change = colors.index_select(0, found.inside) - colors.index_select(0, found.outside)
    change = (found.distance - 0.5)[:, None].to(change) * change
    target = torch.where(found.distance > 0.5, found.outside, found.inside)
    return colors.index_add(0, target, change).view(-1, height, width, image.shape[1]).movedim(-1, 1)


def walk(scene: Scene, outline: Silhouettes, height: int, width: int) -> Crossings:
    """Where the edges cross the lines through pixels' centers: rows for steep edges, columns for flat ones."""
    ends = scene.clip.index_select(0, outline.edge.flatten())
    ends = to_pixels(ends, height, width).view(-1, 2, 4)
    w = ends[..., 3]
    place = ends[..., :2] / ends[..., 3:]
    way = (place[:, 1] - place[:, 0]).detach()
    steep = way[:, 1].abs() >= way[:, 0].abs()
    # "Along" runs from line to line, "across" on a line from one pixel to the next.
    along, across = (torch.where(steep[:, None], place[..., i], place[..., 1 - i]) for i in (1, 0))
    lines = torch.where(steep, height, width).to(w)
    # A vertex on a line belongs to the next of its two edges, for any edge ends before the line that another starts at.
    first = torch.minimum(along.detach().amin(dim=1).ceil().clamp(min=0), lines)
    count = (torch.minimum(along.detach().amax(dim=1).ceil(), lines) - first).clamp(min=0).long()
    edge = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    nth = torch.arange(len(edge), device=edge.device) - (count.cumsum(0) - count)[edge]
    line = first[edge] + nth
    from_, to = along[edge].unbind(1)
    share = (line - from_) / (to - from_)
    x = torch.lerp(across[edge, 0], across[edge, 1], share)
    depth = 1 / torch.lerp(1 / w[edge, 0], 1 / w[edge, 1], share).detach()
    # y points down here: the surface is right of a steep edge that goes down if it is on its left in `Silhouettes`.
    ascending = outline.side * torch.where(steep, way[:, 1].sign(), way[:, 0].sign().neg()) > 0
    return _pairs(edge, line.long(), x, depth, steep[edge], ascending[edge], outline.picture[edge], height, width)


def _pairs(
    edge: Tensor, line: Tensor, x: Tensor, depth: Tensor, steep: Tensor, ascending: Tensor, picture: Tensor,
    height: int, width: int,
) -> Crossings:  # fmt: skip
    """Name the pixels on both sides of crossings at x on a line; `ascending`: the surface is at larger x."""
    low = x.detach().floor().clamp(-1, max(height, width))
    kept = ((low >= 0) & (low + 1 < torch.where(steep, width, height))).nonzero()[:, 0]
    edge, line, x, low, depth, steep, ascending, picture = (
        value.index_select(0, kept) for value in (edge, line, x, low, depth, steep, ascending, picture)
    )
    column, row = torch.where(steep, low.long(), line), torch.where(steep, line, low.long())
    one = (picture * height + row) * width + column
    two = one + torch.where(steep, 1, width)
    distance = torch.where(ascending, low + 1 - x, x - low)
    inside, outside = torch.where(ascending, two, one), torch.where(ascending, one, two)
    return Crossings(edge, inside, outside, distance, depth, 2 * one + steep)


@torch.no_grad()
def visible(found: Crossings, outline: Silhouettes, fragments: Fragments, scene: Scene) -> Tensor:
    """The indices of crossings at which the edge is seen.

    The outer pixel must show what lies behind the edge, and the inner one the edge's own surface. Of several edges
    between one pair of pixels the nearest blends.
    """
    empty = fragments.face.flatten() < 0
    depth = torch.where(empty, torch.inf, fragments.depth.flatten())
    seen = (depth[found.outside] > found.depth * (1 + TOLERANCE)) & ~empty[found.inside]
    index = seen.nonzero()[:, 0]
    index = index[owned(found.at(index), outline, fragments, scene)]
    buffer = torch.full((2 * len(depth),), EMPTY, device=depth.device)
    buffer.scatter_reduce_(0, found.pair[index], pack(found.depth[index], index), "amin")
    return index[unpack(buffer)[found.pair[index]] == index]


def owned(found: Crossings, outline: Silhouettes, fragments: Fragments, scene: Scene) -> Tensor:
    """Whether the inner pixels show the edges' own surface, rather than one in front of it or far behind.

    The face seen there, continued to the edge, must lie in the range of depth of the edge's own faces, or near it: a
    round surface bends away by about the change of its depth from pixel to pixel, a rough one by the size of a pixel,
    here that at a field of view of 90 degrees. REACH times their sum is let pass.
    """
    height, width = fragments.face.shape[1:]
    rows = scene.faces.index_select(0, fragments.face.flatten()[found.inside])
    corners = to_pixels(scene.clip.index_select(0, rows.flatten()), height, width).view(-1, 3, 4)
    column, row = found.outside % width, found.outside // width % height
    e = torch.stack(edge_functions(corners, column, row), dim=1)
    inner = fragments.depth.flatten()[found.inside]
    slope = (e * corners[..., 3]).sum(dim=1) / e.sum(dim=1) - inner
    depth = inner + found.distance * slope
    nearest, farthest = (depths[found.edge] for depths in outline.depth.unbind(1))
    margin = REACH * (slope.abs() + 2 * found.depth / height)
    return (depth >= nearest - margin) & (depth <= farthest + margin)
