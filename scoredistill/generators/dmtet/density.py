"""From a density to a signed distance: threshold from the occupancy, a tightened box, the surface in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.generators.dmtet.distance import signed_distance
from scoredistill.rendering.mesh import NoSurfaceError, marching_cubes

LENGTH = 1 / 16
"""World units of the way whose opacity says how occupied a place is."""

FAINTEST = 1e-3
"""Opacity of that way below which a place is empty whatever else there is."""

SPECK = 0.01
"""Share of all occupied places below which a connected piece of them is dropped."""

MARGIN = 1.15
"""Side of the box around what is occupied, relative to that: room for the shape to grow."""


@dataclass(frozen=True)
class Shape:
    """A surface in its box.

    Args:
        distance: (A, A, A) signed distances, negative inside, in units of `half`.
        center: (3,) of the box, a cube, in world units.
        half: half of the box's side, in world units.
    """

    distance: Tensor
    center: Tensor
    half: float


@torch.no_grad()
def shape_of(density: Callable[[Tensor], Tensor], points: int, threshold: float | None, like: Tensor) -> Shape:
    """The surface of a density in [-1, 1]^3.

    The density is read once everywhere, which gives the threshold and the box, and once more in the box alone, where
    the lattice is finer. Pieces of less than a hundredth of what is occupied are dropped; cavities are filled,
    for no camera sees into them, and what density is there is chance.

    Args:
        density: of points (P, 3) in [-1, 1]^3, (P,) per world unit.
        points: of the lattice along each axis, >= 2.
        threshold: density at the surface; None: `occupancy_threshold`.
        like: a tensor with the dtype and device that the density's points have to have.

    Raises:
        NoSurfaceError: if there is none, saying which densities there are and proposing a threshold.
        ValueError: if a density is not finite.
    """
    everywhere = _lattice(density, torch.zeros(3), 1.0, points, like)
    threshold = _checked(everywhere, threshold)
    occupied = (_solid(everywhere, threshold) > threshold).nonzero() * (2 / (points - 1)) - 1
    low, high = occupied.amin(0), occupied.amax(0)
    half = min(1.0, MARGIN * (float((high - low).max()) / 2 + 2 / (points - 1)))
    center = ((low + high) / 2).clamp(half - 1, 1 - half)
    values = _solid(_lattice(density, center, half, points, like), threshold)
    # Density grows exponentially through a surface: its logarithm is what interpolates well between points.
    mesh = marching_cubes((values / threshold).clamp(min=1e-6, max=1e6).log(), 0.0)
    return Shape(signed_distance(mesh, points), center, half)


def occupancy_threshold(values: Tensor) -> float:
    """The density that parts occupied places from empty ones best.

    Otsu's threshold of the opacity 1 - exp(-density / 16), that of a way of a sixteenth of a world unit: it makes the
    variance between the two classes greatest. "A Threshold Selection Method from Gray-Level Histograms" (1979).

    Args:
        values: densities of a lattice, any shape, >= 0, not all the same.
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
    # Between two clear classes any threshold is as good: take the middle one.
    best = (between >= between.max() * (1 - 1e-9)).nonzero()[:, 0].double().mean()
    split = low + (float(best) + 1) * ((high - low) / bins)
    return -log(max(1 - split, 1e-12)) / LENGTH


def _lattice(density: Callable[[Tensor], Tensor], center: Tensor, half: float, points: int, like: Tensor) -> Tensor:
    axis = torch.linspace(-1, 1, points, dtype=torch.float64)
    x, y, z = (axis * half + c for c in center.tolist())
    slabs = []
    for each in x:
        place = torch.stack(torch.meshgrid(each[None], y, z, indexing="ij"), dim=-1).view(-1, 3)
        slabs.append(density(place.clamp(-1, 1).to(like)).cpu().float())
    values = torch.cat(slabs).view((points,) * 3)
    if not bool(values.isfinite().all()):
        raise ValueError("a density is not finite; training has diverged")
    return values


def _checked(values: Tensor, threshold: float | None) -> float:
    low, high = float(values.min()), float(values.max())
    if high * LENGTH < FAINTEST:
        raise NoSurfaceError(f"empty everywhere: the density is at most {high:.3g}, too little to be seen")
    if high <= 1.001 * low:
        raise NoSurfaceError(f"no surface: the density is {high:.3g} everywhere")
    usual = occupancy_threshold(values)
    if threshold is None:
        return usual
    if not low < threshold < high:
        raise NoSurfaceError(
            f"no surface at density {threshold:g}: densities range from {low:.3g} to {high:.5g}; "
            f"try a threshold of {usual:.5g}"
        )
    return threshold


def _solid(values: Tensor, threshold: float) -> Tensor:
    """The densities, 0 in pieces that are too small, and high in cavities; the largest piece is always kept."""
    from scipy.ndimage import binary_fill_holes, label

    pieces = torch.from_numpy(label((values > threshold).numpy())[0]).long()
    sizes = torch.bincount(pieces.flatten())
    sizes[0] = 0
    specks = (sizes < min(SPECK * int(sizes.sum()), int(sizes.max())))[pieces] & (pieces > 0)
    kept = (pieces > 0) & ~specks
    cavities = torch.from_numpy(binary_fill_holes(kept.numpy())) & ~kept
    return torch.where(cavities, values.max(), torch.where(specks, 0, values))
