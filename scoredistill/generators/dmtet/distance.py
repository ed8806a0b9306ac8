"""Signed distances from a lattice to a triangle mesh.

The distance is exact to the triangles near the surface, and a Euclidean distance transform's farther away. The sign is
the winding number's: along each axis, in both directions, the crossings with the surface are counted with their
orientation, and the six counts averaged. For a closed surface all six are 1 inside; holes spoil only some of them.
"Robust Inside-Outside Segmentation using Generalized Winding Numbers" (2013) is the exact number over all directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh

BAND = 2
"""Cells on either side of the surface within which distances are exact."""

SAMPLES = 16
"""Surface samples for each face of a cell that would cover the same area: among the faces of the nearest few of them is
the nearest face."""

PAIRS = 1 << 22
"""Pairs of a face and a lattice line looked at together, which bounds the memory."""

NEAREST = 12
"""Of those few."""

PLASTIC = (0.7548776662466927, 0.5698402909980532)
"""Steps of the sequence R2: 1 / p and 1 / p^2 for the plastic number p, which solves p^3 = p + 1."""

ASIDE = (0.00131, 0.00273)
"""Share of a cell by which lines pass beside the lattice points, that they may miss the mesh's edges and vertices."""


@torch.no_grad()
def signed_distance(mesh: Mesh, points: int) -> Tensor:
    """Signed distances, negative inside, at the points of a lattice over [-1, 1]^3.

    Args:
        mesh: wound outwards; what lies beyond the box is cut off.
        points: of the lattice along each axis, >= 2.

    Returns:
        (points, points, points) float64 on the CPU.

    Raises:
        ValueError: if the mesh has no area, or a vertex that is not finite.
    """
    corners = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1) / 2
    if not 0 < float(area.sum()) < float("inf"):
        raise ValueError("a mesh with an area and finite vertices is needed; this one has none, or others")
    distance = _distance(corners, area, points)
    return torch.where(_winding(corners, points) > 0.5, -distance, distance)


def _samples(corners: Tensor, area: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """(S, 3) points, evenly spread over the faces, and the faces (S,) that they lie on."""
    count = (area * (SAMPLES / spacing**2)).ceil().clamp(min=1).long()
    face = torch.arange(len(area)).repeat_interleave(count)
    # A low-discrepancy sequence on each face, for random points leave gaps.
    slot = torch.arange(len(face)) - (count.cumsum(0) - count)[face]
    share = ((slot[:, None] + 0.5) * torch.tensor(PLASTIC, dtype=torch.float64)) % 1
    share = torch.where(share.sum(1, keepdim=True) > 1, 1 - share, share)
    a, b, c = corners[face].unbind(1)
    return a + share[:, :1] * (b - a) + share[:, 1:] * (c - a), face


def _distance(corners: Tensor, area: Tensor, points: int) -> Tensor:
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    cell = 2 / (points - 1)
    samples, face = _samples(corners, area, cell)
    touched = torch.zeros(points, points, points, dtype=torch.bool)
    # Samples beyond the box count at its faces, where exact distances then replace the wrong ones that this gives.
    touched[tuple(((samples + 1) / cell).round().long().clamp(0, points - 1).T)] = True
    distance = torch.from_numpy(distance_transform_edt(~touched.numpy()))
    # A point touched by the surface is less than a cell away from it.
    band = (distance < BAND + 1).nonzero()
    _, nearest = cKDTree(samples.numpy()).query((band * cell - 1).numpy(), k=NEAREST)
    candidates = face[torch.from_numpy(nearest) % len(face)]
    near = torch.full((len(band),), float("inf"), dtype=torch.float64)
    for k in range(NEAREST):
        near = torch.minimum(near, to_triangle(band * cell - 1, corners[candidates[:, k]]))
    return (cell * distance).index_put(tuple(band.T), near)


def to_triangle(p: Tensor, corners: Tensor) -> Tensor:
    """Distances of points (K, 3) from their triangles (K, 3, 3)."""
    edges = corners.roll(-1, dims=1) - corners
    offset = p[:, None] - corners
    along = ((offset * edges).sum(2) / edges.square().sum(2).clamp(min=1e-300)).clamp(0, 1)
    to_edges = (offset - along[..., None] * edges).norm(dim=2).min(dim=1).values
    normal = torch.linalg.cross(edges[:, 0], edges[:, 1])
    beside = torch.linalg.cross(edges, offset) @ normal[:, :, None]
    length = normal.norm(dim=1)
    to_plane = (offset[:, 0] * normal).sum(1).abs() / length.clamp(min=1e-300)
    return torch.where((beside[..., 0] >= 0).all(1) & (length > 0), to_plane, to_edges)


def _winding(corners: Tensor, points: int) -> Tensor:
    total = torch.zeros((points,) * 3, dtype=torch.float32)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        crossings = _crossings((corners[..., order] + 1) * ((points - 1) / 2), points)
        # crossings[.., k]: of the surface between the points k - 1 and k of a line, k = 0 .. points.
        above = crossings.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        below = crossings.cumsum(-1)[..., :-1]
        total += (above - below).permute([order.index(i) for i in range(3)]) / 6
    return total


def _crossings(corners: Tensor, points: int) -> Tensor:
    """Where the lattice's lines along the last axis leave the surface (+1) or enter it (-1).

    Args:
        corners: (F, 3, 3), in cells from the lattice's lowest point.
        points: of the lattice along each axis.

    Returns:
        (points, points, points + 1), summed between lattice points.
    """
    counts = torch.zeros(points * points * (points + 1), dtype=torch.float32)
    plane = corners[..., :2] - torch.tensor(ASIDE, dtype=corners.dtype)
    low = plane.amin(1).ceil().long().clamp(0, points)
    extent = (plane.amax(1).floor().long().clamp(-1, points - 1) - low + 1).clamp(min=0)
    pairs = extent.prod(1)
    for some in (pairs.cumsum(0) // PAIRS).unique_consecutive(return_counts=True)[1].tolist():
        here = slice(0, some)
        _count(counts, corners[here], plane[here], low[here], extent[here], points)
        corners, plane, low, extent = corners[some:], plane[some:], low[some:], extent[some:]
    return counts.view(points, points, points + 1)


def _count(counts: Tensor, corners: Tensor, plane: Tensor, low: Tensor, extent: Tensor, points: int) -> None:
    """Add some faces' crossings."""
    pairs = extent.prod(1)
    face = torch.arange(len(pairs)).repeat_interleave(pairs)
    slot = torch.arange(len(face)) - (pairs.cumsum(0) - pairs)[face]
    column = low[face] + torch.stack([slot // extent[face, 1], slot % extent[face, 1]], dim=1)
    offset = plane[face] - column[:, None]
    ahead = offset.roll(-1, dims=1)
    # Twice the areas between the line and each edge, opposite the corner before it: all of one sign if it crosses.
    part = (offset[..., 0] * ahead[..., 1] - offset[..., 1] * ahead[..., 0]).roll(-1, dims=1)
    hit = ((part > 0).all(1) | (part < 0).all(1)).nonzero()[:, 0]
    part, face, column = part[hit], face[hit], column[hit]
    height = (part * corners[face, :, 2]).sum(1) / part.sum(1)
    place = height.ceil().clamp(0, points).long()
    index = (column[:, 0] * points + column[:, 1]) * (points + 1) + place
    counts.index_add_(0, index, part[:, 0].sign().float())
