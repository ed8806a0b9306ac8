"""Signed distances from a lattice to a triangle mesh.

Near the surface the distance to the triangles is exact; farther away a Euclidean distance transform is used. The sign
comes from the winding number: along each axis, in both directions, the oriented crossings with the surface are counted,
and the six counts are averaged. For a closed surface all six are 1 inside; a hole affects only some of them.
"Robust Inside-Outside Segmentation using Generalized Winding Numbers" (2013) has the exact number over all directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh

BAND = 2
"""Cells on either side of the surface within which distances are exact."""

SAMPLES = 16
"""Surface samples per face of a cell of the same area. They are dense enough that the nearest face is among the faces
of the `NEAREST` nearest samples."""

PAIRS = 1 << 22
"""Pairs of a face and a lattice line that are processed at once, which bounds the memory."""

NEAREST = 12
"""Number of nearest samples whose faces are candidates for the nearest face."""

PLASTIC = (0.7548776662466927, 0.5698402909980532)
"""Steps of the sequence R2: 1 / p and 1 / p^2 for the plastic number p, which solves p^3 = p + 1."""

ASIDE = (0.00131, 0.00273)
"""Offset of the lines from the lattice points as a share of a cell, so that they miss the mesh's edges and vertices."""


@torch.no_grad()
def signed_distance(mesh: Mesh, points: int) -> Tensor:
    """Signed distances, negative inside, at the points of a lattice over [-1, 1]^3.

    Args:
        mesh: oriented outwards; it is cut off at the faces of the box.
        points: lattice points along each axis, >= 2.

    Returns:
        (points, points, points) float64 on the CPU.

    Raises:
        ValueError: if the mesh has no area, or a vertex is not finite.
    """
    corners = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1) / 2
    if not 0 < float(area.sum()) < float("inf"):
        raise ValueError("a signed distance needs a mesh with finite vertices and a positive area")
    distance = _distance(corners, area, points)
    return torch.where(_winding(corners, points) > 0.5, -distance, distance)


def _samples(corners: Tensor, area: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """(S, 3) points spread evenly over the faces, and the faces (S,) that contain them."""
    count = (area * (SAMPLES / spacing**2)).ceil().clamp(min=1).long()
    face = torch.arange(len(area)).repeat_interleave(count)
    # A low-discrepancy sequence on each face, because random points leave gaps.
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
    # Samples outside the box are clamped to its faces. The exact distances below replace the wrong ones there.
    touched[tuple(((samples + 1) / cell).round().long().clamp(0, points - 1).T)] = True
    distance = torch.from_numpy(distance_transform_edt(~touched.numpy()))
    # A touched point is less than a cell away from the surface.
    band = (distance < BAND + 1).nonzero()
    _, nearest = cKDTree(samples.numpy()).query((band * cell - 1).numpy(), k=NEAREST)
    candidates = face[torch.from_numpy(nearest) % len(face)]
    near = torch.full((len(band),), float("inf"), dtype=torch.float64)
    for k in range(NEAREST):
        near = torch.minimum(near, to_triangle(band * cell - 1, corners[candidates[:, k]]))
    return (cell * distance).index_put(tuple(band.T), near)


def to_triangle(p: Tensor, corners: Tensor) -> Tensor:
    """Distances of points (K, 3) from triangles (K, 3, 3), row by row."""
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
        # crossings[.., k] counts the crossings between the points k - 1 and k of a line, k = 0 .. points.
        above = crossings.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        below = crossings.cumsum(-1)[..., :-1]
        total += (above - below).permute([order.index(i) for i in range(3)]) / 6
    return total


def _crossings(corners: Tensor, points: int) -> Tensor:
    """Where the lattice's lines along the last axis leave the surface (+1) or enter it (-1).

    Args:
        corners: (F, 3, 3), in cells from the lattice's lowest point.
        points: lattice points along each axis.

    Returns:
        (points, points, points + 1), summed between lattice points.
    """
    counts = torch.zeros(points * points * (points + 1), dtype=torch.float32)
    plane = corners[..., :2] - torch.tensor(ASIDE, dtype=corners.dtype)
    low = plane.amin(1).ceil().long().clamp(0, points)
    extent = (plane.amax(1).floor().long().clamp(-1, points - 1) - low + 1).clamp(min=0)
    pairs = extent.prod(1)
    start = 0
    for size in (pairs.cumsum(0) // PAIRS).unique_consecutive(return_counts=True)[1].tolist():
        block = slice(start, start + size)
        _count(counts, corners[block], plane[block], low[block], extent[block], points)
        start += size
    return counts.view(points, points, points + 1)


def _count(counts: Tensor, corners: Tensor, plane: Tensor, low: Tensor, extent: Tensor, points: int) -> None:
    """Add the crossings of a block of faces to `counts`."""
    pairs = extent.prod(1)
    face = torch.arange(len(pairs)).repeat_interleave(pairs)
    slot = torch.arange(len(face)) - (pairs.cumsum(0) - pairs)[face]
    column = low[face] + torch.stack([slot // extent[face, 1], slot % extent[face, 1]], dim=1)
    offset = plane[face] - column[:, None]
    ahead = offset.roll(-1, dims=1)
    # Twice the areas between the line and each edge: all have the same sign if the line crosses the face.
    part = (offset[..., 0] * ahead[..., 1] - offset[..., 1] * ahead[..., 0]).roll(-1, dims=1)
    hit = ((part > 0).all(1) | (part < 0).all(1)).nonzero()[:, 0]
    part = part[hit]
    face = face[hit]
    column = column[hit]
    height = (part * corners[face, :, 2]).sum(1) / part.sum(1)
    place = height.ceil().clamp(0, points).long()
    index = (column[:, 0] * points + column[:, 1]) * (points + 1) + place
    counts.index_add_(0, index, part[:, 0].sign().float())
