"""Encodings: features of a point in a particle's scene."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import pi

import torch
from torch import Tensor, nn

from scoredistill.generators.nerf.interpolation import CORNERS, corners, weighted_gather
from scoredistill.ranges import require


class Encoding(nn.Module, ABC):
    """Features of points, one scene per particle. A subclass implements `forward` and states `features`.

    The constructor takes settings only; NeRF copies the encoding and calls `allocate` once it knows the number of
    particles. Every parameter and buffer made there has a leading particle axis.
    """

    features: int
    """Number of features F of a point."""

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """Create the parameters of n particles; encodings without any leave it out.

        Args:
            particles: n >= 1.
            rng: CPU generator for initial values.
        """
        del particles, rng

    @abstractmethod
    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        """Encode points.

        Args:
            points: (P, 3) in [-1, 1]^3, sorted by particle.
            particle: (P,) non-decreasing index of the particle that each point belongs to.

        Returns:
            (P, F), differentiable in the parameters and the points.
        """


class DenseGrid(Encoding):
    """Trilinear interpolation of a voxel grid per particle: the fastest encoding on a CPU.

    "Direct Voxel Grid Optimization: Super-fast Convergence for Radiance Fields Reconstruction" (2021),
    arXiv:2111.11215. With 4 channels and no head, the features are the density's pre-activation and the logits of the
    colour themselves. Piecewise linear: second derivatives by position exist only between different axes.

    Args:
        resolution: vertices along each axis, >= 2; the outermost lie on the faces of [-1, 1]^3.
        channels: features of a vertex, >= 1.
        std: standard deviation of the initial values, >= 0.
    """

    def __init__(self, resolution: int = 64, channels: int = 4, std: float = 0.0) -> None:
        require(">= 2", resolution=resolution)
        require(">= 1", channels=channels)
        require(">= 0", std=std)
        super().__init__()
        self.resolution, self.features, self.std = resolution, channels, std

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        r = self.resolution
        self.grid = nn.Parameter(self.std * torch.randn(particles, r, r, r, self.features, generator=rng))

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        r = self.resolution
        cell, weight = corners(points, r)
        x, y, z = cell
        lowest = ((particle.to(cell.dtype) * r + x) * r + y) * r + z
        offsets = torch.tensor([(i * r + j) * r + k for i, j, k in CORNERS], dtype=cell.dtype, device=cell.device)
        return weighted_gather(self.grid.flatten(0, 3), lowest + offsets[:, None], weight)


class Frequency(Encoding):
    """The point itself, and the sine and cosine of its coordinates at frequencies pi, 2 pi, 4 pi, ...

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934, equation 4.
    It has no parameters, so it needs a head.

    Args:
        octaves: number of frequencies, >= 0.
    """

    def __init__(self, octaves: int = 6) -> None:
        require(">= 0", octaves=octaves)
        super().__init__()
        self.octaves, self.features = octaves, 3 + 6 * octaves

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        frequency = pi * 2 ** torch.arange(self.octaves, dtype=points.dtype, device=points.device)
        phase = (points[:, :, None] * frequency).flatten(1)
        return torch.cat([points, phase.sin(), phase.cos()], dim=1)
