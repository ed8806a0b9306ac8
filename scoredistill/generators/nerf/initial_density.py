"""Initial density and color: fixed biases of the raw values, by position and particle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import pi

import torch
from torch import Tensor, nn

from scoredistill.ranges import require


class Initial(nn.Module, ABC):
    """A fixed bias of the field's raw values. A subclass implements `forward`; `allocate` is as in `Encoding`."""

    def allocate(self, particles: int, rng: torch.Generator, channels: int = 3) -> None:
        """Draw the buffers that differ between particles. Each has a leading particle axis.

        Args:
            particles: n >= 1.
            rng: CPU generator.
            channels: channels C of a color.
        """
        del particles, rng, channels

    @property
    def solid_radius(self) -> float:
        """Radius of the ball around the origin that is dense at first, where no camera may be; 0: none."""
        return 0.0

    @abstractmethod
    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        """The bias at points.

        Args:
            points: (P, 3) in [-1, 1]^3, sorted by particle.
            particle: (P,) index of each point's particle, non-decreasing.

        Returns:
            (P, 1 + C): bias of the density's pre-activation, then of the color's logits.
        """


class Variation(nn.Module):
    """Random differences between particles: a low-frequency wave of density, and a color.

    Args:
        shape: standard deviation of the wave.
        color: standard deviation of the color logits.
    """

    waves = 4

    def __init__(self, shape: float, color: float) -> None:
        super().__init__()
        self.shape = shape
        self.color = color

    def allocate(self, particles: int, rng: torch.Generator, channels: int) -> None:
        """See `Initial.allocate`."""
        self.register_buffer("logits", self.color * torch.randn(particles, channels, generator=rng))
        self.register_buffer("wave", pi * torch.randn(particles, 3, self.waves, generator=rng))
        self.register_buffer("phase", 2 * pi * torch.rand(particles, 1, self.waves, generator=rng))

    def forward(self, density: Tensor, points: Tensor, particle: Tensor) -> Tensor:
        """Add the wave to raw density (P,) and append the color's logits, (P, 1 + C)."""
        wave, phase, logits = (self.get_buffer(name) for name in ("wave", "phase", "logits"))
        if self.shape:
            counts = torch.bincount(particle, minlength=len(wave)).tolist()
            parts = zip(points.split(counts), wave, phase, strict=True)
            total = torch.cat([torch.addmm(b, x, w).cos().sum(1) for x, w, b in parts])
            density = density + self.shape * (2 / self.waves) ** 0.5 * total
        return torch.cat([density[:, None], logits.index_select(0, particle)], dim=1)


def _radius(points: Tensor) -> Tensor:
    # The square root's derivative is infinite at 0.
    return (points.square().sum(1) + 1e-12).sqrt()


class DensityBlob(Initial):
    """A soft ball, for objects: bias of the raw density strength · (1 - |x| / radius).

    "Magic3D: High-Resolution Text-to-3D Content Creation" (2022), arXiv:2211.10440, which uses 10 and .5 with the
    softplus activation; the defaults here suit the exponential. Particles differ in size, color and a low-frequency
    wave of density, because particles that start equal stay equal.

    Args:
        strength: bias at the center, finite.
        radius: distance from the origin where the bias is zero, in world units, > 0.
        size_variation: standard deviation of the logarithm of a particle's radius, >= 0.
        color_variation: standard deviation of a particle's color logits, >= 0.
        shape_variation: standard deviation of the wave that is added to the raw density, >= 0.
    """

    def __init__(
        self,
        strength: float = 4.0,
        radius: float = 0.4,
        size_variation: float = 0.1,
        color_variation: float = 0.5,
        shape_variation: float = 1.0,
    ) -> None:
        require("finite", strength=strength)
        require("> 0", radius=radius)
        require(">= 0", size_variation=size_variation, color_variation=color_variation, shape_variation=shape_variation)
        super().__init__()
        self.strength = strength
        self.radius = radius
        self.size_variation = size_variation
        self.variation = Variation(shape_variation, color_variation)

    @property
    def solid_radius(self) -> float:
        return self.radius if self.strength > 0 else 0.0

    def allocate(self, particles: int, rng: torch.Generator, channels: int = 3) -> None:
        size = torch.exp(self.size_variation * torch.randn(particles, generator=rng))
        self.register_buffer("radii", self.radius * size)
        self.variation.allocate(particles, rng, channels)

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        slope = (self.strength / self.get_buffer("radii")).index_select(0, particle)
        return self.variation(self.strength - slope * _radius(points), points, particle)


class HollowSphere(Initial):
    """Empty inside and dense outside, for scenes seen from inside: raw density strength · (|x| / radius - 1).

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213, scene initialization, which uses strength 10 and radius 2.5 in a box of half-width 5, with
    softplus.

    Args:
        strength: minus the bias at the center, finite.
        radius: distance from the origin where the bias is zero, in world units, > 0.
        color_variation: standard deviation of a particle's color logits, >= 0.
        shape_variation: standard deviation of a low-frequency wave that is added to the raw density, >= 0.
    """

    def __init__(
        self,
        strength: float = 4.0,
        radius: float = 0.5,
        color_variation: float = 0.5,
        shape_variation: float = 1.0,
    ) -> None:
        require("finite", strength=strength)
        require("> 0", radius=radius)
        require(">= 0", color_variation=color_variation, shape_variation=shape_variation)
        super().__init__()
        self.strength = strength
        self.radius = radius
        self.variation = Variation(shape_variation, color_variation)

    def allocate(self, particles: int, rng: torch.Generator, channels: int = 3) -> None:
        self.variation.allocate(particles, rng, channels)

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        return self.variation(self.strength * (_radius(points) / self.radius - 1), points, particle)
