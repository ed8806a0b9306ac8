"""Occupancy: where each particle's scene is certainly empty, and where it certainly lets no light through."""

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
    26 neighbors; a cell is empty where it lies under `threshold`. The lower estimate is the minimum over the same
    neighborhood; along a ray, samples behind a lower estimate of optical depth of -log(`transmittance`) are dropped.
    Both err on the side of eval_mode too much. Before the first update nothing is skipped; after one, opacity is off
    by at most `threshold` · (length of the ray within [-1, 1]^3) + `transmittance`, and by far less once the field is
    sharp, as long as the field has no detail finer than a cell and does not change much between updates.

    "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), arXiv:2201.05989, appendix E.

    Args:
        resolution: cells along each axis of [-1, 1]^3, >= 1.
        threshold: density per world unit under which a cell is empty, >= 0.
        transmittance: share of light under which a sample is hidden, in (0, 1).
        decay: of the upper estimate per update, in [0, 1).
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
        self.resolution, self.threshold, self.transmittance = resolution, threshold, transmittance
        self.decay, self.every = decay, every

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """As in `Encoding`."""
        del rng
        cells = self.resolution**3
        self.register_buffer("upper", torch.zeros(particles, cells))
        self.register_buffer("lower", torch.zeros(particles, cells))
        self.register_buffer("occupied", torch.ones(particles, cells, dtype=torch.bool))

    @torch.no_grad()
    def update(self, density: DensityOf, rng: torch.Generator | None, chunk: int) -> None:
        """Look at the density again.

        Args:
            density: the field.
            rng: CPU generator that places the point looked at within each cell; None: the cell's center.
            chunk: most points given to `density` at once.
        """
        r, like = self.resolution, self.upper
        axis = torch.arange(r, device=like.device)
        lowest = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3).to(like)
        offset = 0.5 if rng is None else torch.rand(r**3, 3, generator=rng).to(like)
        points = (lowest + offset) * (2 / r) - 1
        for particle, upper in enumerate(self.upper):
            of = torch.full((r**3,), particle, device=like.device)
            new = torch.cat([density(p, i) for p, i in zip(points.split(chunk), of.split(chunk), strict=True)])
            upper.copy_(torch.maximum(self.decay * upper, new))
            self.lower[particle] = -self._pool(-new)
            self.occupied[particle] = self._pool(upper) > self.threshold

    def _pool(self, cells: Tensor) -> Tensor:
        """Maximum over a cell and its 26 neighbors; an axis at a time, far quicker than max_pool3d on a CPU."""
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
        """Corners (3,) and (3,) of the smallest box around all particles' occupied cells; empty: the first is above."""
        r = self.resolution
        anywhere = self.occupied.any(0).view(r, r, r)
        lowest, highest = [], []
        for axis in ((1, 2), (0, 2), (0, 1)):
            cells = anywhere.amax(axis).nonzero().flatten()
            lowest.append(cells[0] if len(cells) else cells.new_tensor(r))
            highest.append(cells[-1] + 1 if len(cells) else cells.new_tensor(0))
        return tuple(torch.stack(c).to(self.upper) * (2 / r) - 1 for c in (lowest, highest))  # type: ignore[return-value]
