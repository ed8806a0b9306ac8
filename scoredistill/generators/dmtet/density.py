"""Conversion of a density to a signed distance: the threshold, a tight box, and the surface in the box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from scoredistill.generators.dmtet.distance import signed_distance
from scoredistill.rendering.mesh import marching_cubes, surface_level

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
