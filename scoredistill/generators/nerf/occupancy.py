"""Occupancy grid: which cells of each particle's scene are empty, and which are opaque."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoredistill.ranges import require

DensityOf = Callable[[Tensor, Tensor], Tensor]
"""Density (P,) of points (P, 3) of particles (P,), sorted by particle."""


class Occupancy(nn.Module):
    """A grid of upper and lower estimates of density per particle, so that most samples need no evaluation.

    Each update evaluates the density once in every cell. The upper estimate is max(decay · old, new), pooled over the
    26 neighbors; a cell is empty if it is below `threshold`. The lower estimate is the minimum over the same
    neighborhood; along a ray, samples behind a lower estimate of optical depth of -log(`transmittance`) are dropped.
    Both estimates err on the side of evaluating too many samples. Before the first update nothing is skipped. After an
    update, the error of the opacity is at most `threshold` · (length of the ray inside [-1, 1]^3) + `transmittance`,
    and far smaller once the field is sharp, if the field has no detail finer than a cell and changes little between
    updates.

    "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), arXiv:2201.05989, appendix E.

    Args:
        resolution: cells along each axis of [-1, 1]^3, >= 1.
        threshold: density per world unit below which a cell is empty, >= 0.
        transmittance: share of light below which a sample is hidden, in (0, 1).
        decay: factor of the old upper estimate in an update, in [0, 1).
        every: generator steps between updates, >= 1.
    """

    upper: Tensor
    lower: Tensor
    occupied: Tensor

    def __init__(
        self,
        resolution: int = 64,
        threshold: float = 0.1,
        transmittance: float = 1e-3,
        decay: float = 0.5,
        every: int = 10,
    ) -> None:
        require(">= 1", resolution=resolution, every=every)
        require(">= 0", threshold=threshold)
        require("(0, 1)", transmittance=transmittance)
        require("[0, 1)", decay=decay)
        super().__init__()
        self.resolution = resolution
        self.threshold = threshold
        self.transmittance = transmittance
        self.decay = decay
        self.every = every

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """See `Encoding.allocate`."""
        del rng
        cells = self.resolution**3
        self.register_buffer("upper", torch.zeros(particles, cells))
        self.register_buffer("lower", torch.zeros(particles, cells))
        self.register_buffer("occupied", torch.ones(particles, cells, dtype=torch.bool))

    @torch.no_grad()
    def update(self, density: DensityOf, rng: torch.Generator | None, chunk: int) -> None:
        """Update both estimates from the density at one point per cell.

        Args:
            density: the field.
            rng: CPU generator for the point's position in its cell; None: the cell's center.
            chunk: maximum number of points in one call of `density`.
        """
        r, like = self.resolution, self.upper
        axis = torch.arange(r, device=like.device)
        lowest = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3).to(like)
        offset = 0.5 if rng is None else torch.rand(r**3, 3, generator=rng).to(like)
        points = (lowest + offset) * (2 / r) - 1
        for particle, upper in enumerate(self.upper):
            index = torch.full((r**3,), particle, device=like.device)
            new = torch.cat([density(p, i) for p, i in zip(points.split(chunk), index.split(chunk), strict=True)])
            upper.copy_(torch.maximum(self.decay * upper, new))
            self.lower[particle] = -self._pool(-new)
            self.occupied[particle] = self._pool(upper) > self.threshold

    def _pool(self, cells: Tensor) -> Tensor:
        """Maximum over a cell and its 26 neighbors, one axis at a time: far faster than max_pool3d on a CPU."""
        r = self.resolution
        cells = cells.view(r, r, r)
        for axis in range(3):
            pooled = cells.clone()
            torch.maximum(
                pooled.narrow(axis, 1, r - 1), cells.narrow(axis, 0, r - 1), out=pooled.narrow(axis, 1, r - 1)
            )
            torch.maximum(
                pooled.narrow(axis, 0, r - 1), cells.narrow(axis, 1, r - 1), out=pooled.narrow(axis, 0, r - 1)
            )
            cells = pooled
        return cells.flatten()

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper corner, (3,) each, of the smallest box around all particles' occupied cells.

        If no cell is occupied, the lower corner is above the upper one.
        """
        r = self.resolution
        anywhere = self.occupied.any(0).view(r, r, r)
        lowest, highest = [], []
        for axis in ((1, 2), (0, 2), (0, 1)):
            cells = anywhere.amax(axis).nonzero().flatten()
            lowest.append(cells[0] if len(cells) else cells.new_tensor(r))
            highest.append(cells[-1] + 1 if len(cells) else cells.new_tensor(0))
        return tuple(torch.stack(c).to(self.upper) * (2 / r) - 1 for c in (lowest, highest))  # type: ignore[return-value]
