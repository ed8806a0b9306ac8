"""The geometry of n particles: one tetrahedral grid in one box per particle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from scoredistill.cache import LastCallCache
from scoredistill.generators.dmtet.distance import shape_of
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.surface import Surface, marching_tetrahedra
from scoredistill.ranges import require
from scoredistill.rendering.mesh import Mesh, no_surface_at, surface_level


class Geometry(nn.Module):
    """Grids over cubic boxes. A box is [-1, 1]^3 at first; initialization from a density makes it tight.

    Args:
        distance: (n, R + 1, R + 1, R + 1) initial signed distances, negative inside.
        shift: share of a cell by which lattice points may move along each axis, in [0, 1/6).
    """

    center: Tensor
    scale: Tensor

    def __init__(self, distance: Tensor, shift: float) -> None:
        super().__init__()
        self.grid = Grid(distance, shift)
        self.register_buffer("center", distance.new_zeros(len(distance), 3))
        self.register_buffer("scale", distance.new_ones(len(distance)))
        self._last_surface = LastCallCache[Surface]()

    def surface(self) -> Surface:
        """All particles' surfaces in their boxes' units, differentiable. Fixed surfaces are cached."""
        parameters = tuple(self.grid.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            return marching_tetrahedra(self.grid)
        where = (self.center.device, self.center.dtype)
        return self._last_surface.of(where, parameters, lambda: marching_tetrahedra(self.grid))

    def placed(self, surface: Surface) -> Surface:
        """Convert a surface from the boxes' units to world units."""
        center, scale = (box.index_select(0, surface.particle) for box in (self.center, self.scale))
        return replace(surface, vertices=center + scale[:, None] * surface.vertices)

    @torch.no_grad()
    def mesh(self, particle: int, resolution: int | None, threshold: float) -> Mesh:
        """One particle's mesh in world units, without colors. See `DMTet.mesh`."""
        grid = self.grid
        if resolution is not None:
            require(">= 2", resolution=resolution)
            grid = Grid(grid.resampled(resolution), 0.0)
        surface = self.placed(marching_tetrahedra(grid, threshold))
        faces = surface.faces_of()[particle]
        if len(faces) == 0:
            low, high = float(grid.distance[particle].min()), float(grid.distance[particle].max())
            names = (f"particle {particle}", "signed distance")
            middle = (low + high) / 2
            surface_level(low, high, threshold, lambda: middle, *names)
            # The border counts as outside, so a level within the range may also have no surface.
            raise no_surface_at(threshold, low, high, middle, *names)
        return Mesh(surface.vertices.split(surface.vertex_counts)[particle], faces)

    @torch.no_grad()
    def take(self, other: Geometry) -> None:
        """Copy another geometry's boxes and surfaces. Surfaces of a grid with other settings are interpolated.

        This also subdivides a volume: the finer grid copies the coarser one's surfaces.
        """
        alike = (other.grid.points, other.grid.shift) == (self.grid.points, self.grid.shift)
        self.grid.distance.copy_(other.grid.distance if alike else other.grid.resampled(self.grid.points))
        self.grid.raw.copy_(other.grid.raw if alike else torch.zeros_like(self.grid.raw))
        self.center.copy_(other.center)
        self.scale.copy_(other.scale)

    @torch.no_grad()
    def take_density(self, density: Callable[[Tensor, int], Tensor], threshold: float | None) -> None:
        """Initialize from the surfaces of a density. See `DMTet.take_shape`."""
        for i in range(len(self.scale)):

            def particle_density(points: Tensor, particle: int = i) -> Tensor:
                return density(points, particle)

            shape = shape_of(particle_density, self.grid.points, threshold, self.grid.distance, f"particle {i}")
            self.grid.distance[i] = shape.distance.to(self.grid.distance)
            self.grid.raw[i] = 0
            self.center[i] = shape.center
            self.scale[i] = shape.half
