"""The tetrahedral grid: signed distances and shifts on a cubic lattice, whose cells are each cut into six tetrahedra.

Kuhn's six tetrahedra of a cell are the paths from its lowest corner to its highest along the three axes in any order
("Some Combinatorial Lemmas in Topology", 1960). All share the cell's diagonal, and neighboring cells cut their common
face in the same way. An edge goes from a lattice point in one of 7 directions, and these two numbers identify it.
So no list of tetrahedra or edges is stored: the memory is that of the lattice, (R + 1)^3 points of four numbers each.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

X = 4
Y = 2
Z = 1
"""Bits of a corner's number in its cell, from 0 to 7: its offsets along the axes."""

LARGEST_SHIFT = 1 / 6
"""Shift along each axis, as a share of a cell, at which a tetrahedron can turn inside out. A tetrahedron's volume is
affine in each shifted coordinate, so its minimum is at one of 2^12 corners, where it is 0 at exactly this share."""


ROUNDS = 12
"""Fixed-point iterations that invert a shift; each at least halves the error."""


def _tetrahedra() -> tuple[tuple[int, int, int, int], ...]:
    positive = ((X, Y, Z), (Y, Z, X), (Z, X, Y))
    return tuple((0, a, a | b, 7) if (a, b, c) in positive else (0, a | b, a, 7) for a, b, c in permutations((X, Y, Z)))


TETRAHEDRA = _tetrahedra()
"""The corners of a cell's six tetrahedra, each positively oriented: (v1 - v0) x (v2 - v0) . (v3 - v0) > 0."""


def corner_steps(points: int) -> list[int]:
    """Offsets of a cell's 8 corners from its lowest corner in the flattened lattice.

    Args:
        points: lattice points along each axis.
    """
    return [(((c >> 2) & 1) * points + ((c >> 1) & 1)) * points + (c & 1) for c in range(8)]


class Grid(nn.Module):
    """n particles' signed distances and shifts at the lattice points of [-1, 1]^3. The position of a point is

        lattice + (2 / R) shift tanh(raw)

    Points on the border are not shifted, so the tetrahedra fill the box, and none turns inside out. A point is inside
    if its signed distance is below 0. On the border the absolute value of the distance is used, so the border is always
    outside, and a surface that leaves the box is closed half a cell before its face.

    Args:
        distance: (n, R + 1, R + 1, R + 1) signed distances in the box's units, negative inside.
        shift: share of a cell, in [0, 1/6), by which a point may move along each axis.

    Raises:
        ValueError: if the shift is outside that range.
    """

    def __init__(self, distance: Tensor, shift: float) -> None:
        super().__init__()
        if not 0 <= shift < LARGEST_SHIFT:
            raise ValueError(f"shift must be in [0, 1/6), so that no tetrahedron turns inside out; got {shift}")
        self.shift = shift
        self.distance = nn.Parameter(distance)
        self.raw = nn.Parameter(distance.new_zeros(*distance.shape, 3))

    @property
    def points(self) -> int:
        """R + 1, the number of lattice points along each axis."""
        return self.distance.shape[1]

    @property
    def cell(self) -> float:
        """The side of a cell, 2 / R."""
        return 2 / (self.points - 1)

    def inside(self, level: float = 0.0) -> Tensor:
        """Whether points are inside the surface at a level, (n, R + 1, R + 1, R + 1) bool; False on the border."""
        within = torch.zeros_like(self.distance, dtype=torch.bool)
        within[:, 1:-1, 1:-1, 1:-1] = self.distance.detach()[:, 1:-1, 1:-1, 1:-1] < level
        return within

    def at(self, index: Tensor, level: float = 0.0) -> tuple[Tensor, Tensor]:
        """Signed distances to the surface at a level, and positions, of lattice points.

        Args:
            index: (K,) index into the flattened lattices of all particles.
            level: signed distance at the surface.

        Returns:
            distances (K,) and positions (K, 3), both differentiable. Distances are at least a ten-thousandth of a cell
            away from 0, so that a surface through a lattice point does not degenerate.
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
        # The nearest allowed value, with the derivative of the original value.
        return distance + (kept - distance).detach(), self.cell * moved - 1

    @torch.no_grad()
    def resampled(self, points: int) -> Tensor:
        """Signed distances of the same surface at the points of an unshifted lattice, (n, A, A, A).

        A point x is shifted to y = x + u(x), so the value at y is s(x) with x = y - u(x), which is solved by iteration.
        s and u are interpolated trilinearly.

        Args:
            points: points A of the new lattice along each axis, >= 2; the outermost are on the box's faces.
        """
        moved = self.shift * self.cell * self.raw.tanh()
        for axis in (1, 2, 3):
            moved.index_fill_(axis, torch.tensor([0, self.points - 1], device=moved.device), 0)
        moved = moved.movedim(-1, 1)
        distance = self.distance[:, None]
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
