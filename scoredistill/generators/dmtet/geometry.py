"""The geometry of n particles: tetrahedral grids in boxes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from scoredistill.cache import LastCallCache
from scoredistill.generators.dmtet.density import shape_of
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.marching import marching_tetrahedra
from scoredistill.generators.dmtet.surface import Surface
from scoredistill.ranges import require
from scoredistill.rendering.mesh import Mesh, NoSurfaceError


class Geometry(nn.Module):
    """Grids over cubic boxes, which are all of [-1, 1]^3 until a start from a density tightens them.

    Args:
        distance: (n, R + 1, R + 1, R + 1) signed distances at the start, negative inside.
        shift: share of a cell by which lattice points may move along each axis, in [0, 1/6).
    """

    center: Tensor
    scale: Tensor

    def __init__(self, distance: Tensor, shift: float) -> None:
        super().__init__()
        self.grid = Grid(distance, shift)
        self.register_buffer("center", distance.new_zeros(len(distance), 3))
        self.register_buffer("scale", distance.new_ones(len(distance)))
        self._latest = LastCallCache[Surface]()

    def surface(self) -> Surface:
        """Every particle's surface in its box's units, differentiable; a fixed one is made once."""
        parameters = tuple(self.grid.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            return marching_tetrahedra(self.grid)
        where = (self.center.device, self.center.dtype)
        return self._latest.of(where, parameters, lambda: marching_tetrahedra(self.grid))

    def placed(self, surface: Surface) -> Surface:
        """From the boxes' units to the world's."""
        center, scale = (box.index_select(0, surface.particle) for box in (self.center, self.scale))
        return replace(surface, vertices=center + scale[:, None] * surface.vertices)

    @torch.no_grad()
    def mesh(self, particle: int, resolution: int | None, threshold: float) -> Mesh:
        """One particle's mesh in the world, without colors; `DMTet.mesh` explains the arguments."""
        grid = self.grid
        if resolution is not None:
            require(">= 2", resolution=resolution)
            grid = Grid(grid.resampled(resolution), 0.0)
        surface = self.placed(marching_tetrahedra(grid, threshold))
        faces = surface.faces_of()[particle]
        if len(faces) == 0:
            raise _no_surface(grid.distance[particle], particle, threshold)
        return Mesh(surface.vertices.split(surface.vertex_counts)[particle], faces)

    @torch.no_grad()
    def take(self, other: Geometry) -> None:
        """Take over another's boxes and surfaces; from a grid with other settings they are interpolated.

        That is also how a volume is subdivided: the finer grid takes the coarser one's surfaces.
        """
        alike = (other.grid.points, other.grid.shift) == (self.grid.points, self.grid.shift)
        self.grid.distance.copy_(other.grid.distance if alike else other.grid.resampled(self.grid.points))
        self.grid.raw.copy_(other.grid.raw if alike else torch.zeros_like(self.grid.raw))
        self.center.copy_(other.center)
        self.scale.copy_(other.scale)

    @torch.no_grad()
    def take_density(self, density: Callable[[Tensor, int], Tensor], threshold: float | None) -> None:
        """Take over the surfaces of a density; `DMTet.take_shape` explains the arguments."""
        for i in range(len(self.scale)):

            def one(points: Tensor, particle: int = i) -> Tensor:
                return density(points, particle)

            try:
                shape = shape_of(one, self.grid.points, threshold, self.grid.distance)
            except NoSurfaceError as error:
                raise NoSurfaceError(f"particle {i}: {error}") from error
            self.grid.distance[i], self.grid.raw[i] = shape.distance.to(self.grid.distance), 0
            self.center[i], self.scale[i] = shape.center, shape.half


def _no_surface(distance: Tensor, particle: int, threshold: float) -> NoSurfaceError:
    low, high = float(distance.min()), float(distance.max())
    hint = f"try a threshold of {(low + high) / 2:.3g}" if low < high else "no threshold gives one"
    return NoSurfaceError(
        f"particle {particle} has no surface at threshold {threshold:g}: its signed distances range from {low:.3g} to "
        f"{high:.3g}; {hint}"
    )
