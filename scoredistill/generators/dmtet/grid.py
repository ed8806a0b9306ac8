"""The tetrahedral grid: signed distances and shifts on a cubic lattice, whose cells are each cut into six tetrahedra.

Kuhn's six tetrahedra of a cell are the ways from its lowest corner to its highest along the three axes in any order
("Some Combinatorial Lemmas in Topology", 1960). All share the cell's diagonal, neighboring cells cut their common face
alike, and an edge goes from a lattice point in one of 7 directions: lattice point and direction number it. So no list
of tetrahedra or edges is ever held; memory is that of the lattice, (R + 1)^3 points of four numbers each.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

X, Y, Z = 4, 2, 1
"""A cell's corner is numbered by its offsets along the axes, as the bits of a number below 8."""

LARGEST_SHIFT = 1 / 6
"""Share of a cell by which lattice points may be shifted along each axis before a tetrahedron can turn inside out. A
tetrahedron's volume is affine in each shifted coordinate, so that its least value is at one of 2^12 corners, where it
falls to 0 at exactly this share."""


ROUNDS = 12
"""Iterations by which a shift is undone; the error falls by half or better in each."""


def _tetrahedra() -> tuple[tuple[int, int, int, int], ...]:
    positive = ((X, Y, Z), (Y, Z, X), (Z, X, Y))
    return tuple((0, a, a | b, 7) if (a, b, c) in positive else (0, a | b, a, 7) for a, b, c in permutations((X, Y, Z)))


TETRAHEDRA = _tetrahedra()
"""The corners of a cell's six tetrahedra, each positively oriented: (v1 - v0) x (v2 - v0) . (v3 - v0) > 0."""


def corner_steps(points: int) -> list[int]:
    """By how much each of a cell's 8 corners comes later in the flattened lattice than the lowest one.

    Args:
        points: of the lattice along each axis.
    """
    return [(((c >> 2) & 1) * points + ((c >> 1) & 1)) * points + (c & 1) for c in range(8)]


class Grid(nn.Module):
    """n particles' signed distances and shifts at the lattice points of [-1, 1]^3.

    A point lies at  lattice + (2 / R) shift tanh(raw),  points of the border stay where they are: the tetrahedra fill
    the box, and none turns inside out. Inside is where the signed distance is below 0; the border is held outside by
    taking the distance's absolute value there, so that what leaves the box is cut off half a cell before its face.

    Args:
        distance: (n, R + 1, R + 1, R + 1) signed distances in the box's units, negative inside.
        shift: share of a cell, in [0, 1/6), by which a point may move along each axis.

    Raises:
        ValueError: for a shift outside that range.
    """

    def __init__(self, distance: Tensor, shift: float) -> None:
        super().__init__()
        if not 0 <= shift < LARGEST_SHIFT:
            raise ValueError(f"shift must lie in [0, 1/6), beyond which tetrahedra turn inside out; got {shift}")
        self.shift = shift
        self.distance = nn.Parameter(distance)
        self.raw = nn.Parameter(distance.new_zeros(*distance.shape, 3))

    @property
    def points(self) -> int:
        """R + 1, the lattice points along each axis."""
        return self.distance.shape[1]

    @property
    def cell(self) -> float:
        """The side of a cell, 2 / R."""
        return 2 / (self.points - 1)

    def inside(self, level: float = 0.0) -> Tensor:
        """Which points are inside the surface at a level, (n, R + 1, R + 1, R + 1) bool; the border never is."""
        within = torch.zeros_like(self.distance, dtype=torch.bool)
        within[:, 1:-1, 1:-1, 1:-1] = self.distance.detach()[:, 1:-1, 1:-1, 1:-1] < level
        return within

    def at(self, index: Tensor, level: float = 0.0) -> tuple[Tensor, Tensor]:
        """Distances from the surface at a level, and positions, of lattice points.

        Args:
            index: (K,) into the lattices of all particles, flattened.
            level: of the signed distance.

        Returns:
            (K,), at least a ten-thousandth of a cell away from 0, lest a surface through a lattice point collapse
            there, and (K, 3); both differentiable.
        """
        row = index // self.points  # torch.unravel_index would import sympy, which takes seconds
        place = torch.stack([row // self.points % self.points, row % self.points, index % self.points], dim=-1)
        border = ((place == 0) | (place == self.points - 1)).any(dim=-1)
        raw = self.raw.view(-1, 3).index_select(0, index)
        moved = place + self.shift * torch.where(border[:, None], 0, raw.tanh())
        distance = self.distance.flatten().index_select(0, index) - level
        distance = torch.where(border, distance.abs(), distance)
        least = 1e-4 * self.cell
        kept = torch.where(distance < 0, distance.clamp(max=-least), distance.clamp(min=least))
        # The nearest value that is allowed, with the derivative of the value itself.
        return distance + (kept - distance).detach(), self.cell * moved - 1

    @torch.no_grad()
    def resampled(self, points: int) -> Tensor:
        """Signed distances at another lattice's points, (n, A, A, A), of the same surface without any shifts.

        What was shifted from x to y = x + u(x) is looked up there: x = y - u(x), by iteration, s and u being
        interpolated trilinearly.

        Args:
            points: of the new lattice along each axis, A >= 2; the outermost lie on the box's faces.
        """
        moved = self.shift * self.cell * self.raw.tanh()
        for axis in (1, 2, 3):
            moved.index_fill_(axis, torch.tensor([0, self.points - 1], device=moved.device), 0)
        moved, distance = moved.movedim(-1, 1), self.distance[:, None]
        axis_points = torch.linspace(-1, 1, points).to(distance)
        slabs = []
        for x in axis_points:
            y = torch.stack(torch.meshgrid(x[None], axis_points, axis_points, indexing="ij"), dim=-1)
            y = y.expand(len(distance), -1, -1, -1, -1)
            place = y
            for _ in range(ROUNDS):
                place = y - _between(moved, place).movedim(1, -1)
            slabs.append(_between(distance, place)[:, 0])
        return torch.cat(slabs, dim=1)


def _between(lattice: Tensor, places: Tensor) -> Tensor:
    """Trilinear interpolation of (n, C, A, A, A) at places (n, X, Y, Z, 3): (n, C, X, Y, Z)."""
    # grid_sample counts the last axis first.
    return grid_sample(lattice, places.flip(-1), padding_mode="border", align_corners=True)
