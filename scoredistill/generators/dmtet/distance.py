"""Signed distances on a lattice, to a triangle mesh or from a density.

Near the surface the distance to the triangles is exact; farther away a Euclidean distance transform is used. The sign
comes from the winding number: along each axis, in both directions, the oriented crossings with the surface are counted,
and the six counts are averaged. For a closed surface all six are 1 inside; a hole affects only some of them.
"Robust Inside-Outside Segmentation using Generalized Winding Numbers" (2013) has the exact number over all directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh, marching_cubes, surface_level

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


LENGTH = 1 / 16
"""Length in world units of the path whose opacity measures how occupied a point is."""

FAINTEST = 1e-3
"""Opacity of that path below which a point is empty in any scene."""

SPECK = 0.01
"""Share of all occupied points below which a connected piece is dropped."""

MARGIN = 1.15
"""Side of the box relative to the occupied region, which leaves room for the shape to grow."""


@dataclass(frozen=True)
class Shape:
    """A surface in its box.

    Args:
        distance: (A, A, A) signed distances, negative inside, in units of `half`.
        center: (3,) center of the cubic box in world units.
        half: half of the box's side in world units.
    """

    distance: Tensor
    center: Tensor
    half: float


@torch.no_grad()
def shape_of(
    density: Callable[[Tensor], Tensor],
    points: int,
    threshold: float | None,
    like: Tensor,
    subject: str = "the scene",
) -> Shape:
    """The surface of a density in [-1, 1]^3.

    The density is evaluated on a lattice over [-1, 1]^3, which gives the threshold and the box, and then on a finer
    lattice over the box. Connected pieces of less than a hundredth of the occupied points are dropped. Cavities are
    filled, because no camera sees into them and training does not determine their density.

    Args:
        density: from points (P, 3) in [-1, 1]^3 to density (P,) per world unit.
        points: lattice points along each axis, >= 2.
        threshold: density at the surface; None: see `occupancy_threshold`.
        like: a tensor with the dtype and device in which the density takes its points.
        subject: name of the scene, for messages.

    Raises:
        NoSurfaceError: if there is no surface. The message gives the range of densities and suggests a threshold.
        ValueError: if a density is not finite.
    """
    coarse = _lattice(density, torch.zeros(3), 1.0, points, like, subject)
    low, high = float(coarse.min()), float(coarse.max())
    faintest = FAINTEST / LENGTH
    threshold = surface_level(
        low, high, threshold, lambda: occupancy_threshold(coarse), subject, "density", faintest, 1e-3
    )
    occupied = (_solid(coarse, threshold) > threshold).nonzero() * (2 / (points - 1)) - 1
    lowest, highest = occupied.amin(0), occupied.amax(0)
    half = min(1.0, MARGIN * (float((highest - lowest).max()) / 2 + 2 / (points - 1)))
    center = ((lowest + highest) / 2).clamp(half - 1, 1 - half)
    values = _solid(_lattice(density, center, half, points, like, subject), threshold)
    # Density grows exponentially through a surface, so its logarithm interpolates better between points.
    mesh = marching_cubes((values / threshold).clamp(min=1e-6, max=1e6).log(), 0.0)
    return Shape(signed_distance(mesh, points), center, half)


def occupancy_threshold(values: Tensor) -> float:
    """The density that best separates occupied points from empty ones.

    Otsu's threshold of the opacity 1 - exp(-density / 16) of a path of a sixteenth of a world unit: it maximizes the
    variance between the two classes. "A Threshold Selection Method from Gray-Level Histograms" (1979).

    Args:
        values: densities of a lattice, any shape, >= 0, not all equal.
    """
    opacity = -torch.expm1(-LENGTH * values.flatten().double())
    low, high = float(opacity.min()), float(opacity.max())
    bins = 256
    mass = torch.histc(opacity, bins, low, high)
    middle = low + (torch.arange(bins, dtype=torch.float64) + 0.5) * ((high - low) / bins)
    below = mass.cumsum(0)[:-1]
    sum_below = (mass * middle).cumsum(0)[:-1]
    above = mass.sum() - below
    difference = ((mass * middle).sum() - sum_below) / above - sum_below / below
    between = below * above * difference.square()
    # Between two well separated classes many thresholds are equally good: take the middle one.
    best = (between >= between.max() * (1 - 1e-9)).nonzero()[:, 0].double().mean()
    split = low + (float(best) + 1) * ((high - low) / bins)
    return -log(max(1 - split, 1e-12)) / LENGTH


def _lattice(
    density: Callable[[Tensor], Tensor], center: Tensor, half: float, points: int, like: Tensor, subject: str
) -> Tensor:
    axis = torch.linspace(-1, 1, points, dtype=torch.float64)
    x, y, z = (axis * half + c for c in center.tolist())
    slabs = []
    for each in x:
        place = torch.stack(torch.meshgrid(each[None], y, z, indexing="ij"), dim=-1).view(-1, 3)
        slabs.append(density(place.clamp(-1, 1).to(like)).cpu().float())
    values = torch.cat(slabs).view((points,) * 3)
    if not bool(values.isfinite().all()):
        raise ValueError(f"{subject}: a density is not finite; training may have diverged")
    return values


def _solid(values: Tensor, threshold: float) -> Tensor:
    """The densities with small pieces set to 0 and cavities filled. The largest piece is always kept."""
    from scipy.ndimage import binary_fill_holes, label

    pieces = torch.from_numpy(label((values > threshold).numpy())[0]).long()
    sizes = torch.bincount(pieces.flatten())
    sizes[0] = 0
    specks = (sizes < min(SPECK * int(sizes.sum()), int(sizes.max())))[pieces] & (pieces > 0)
    kept = (pieces > 0) & ~specks
    cavities = torch.from_numpy(binary_fill_holes(kept.numpy())) & ~kept
    return torch.where(cavities, values.max(), torch.where(specks, 0, values))
