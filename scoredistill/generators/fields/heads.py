"""Heads: from a point's features to its raw density and color."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoredistill.ranges import require


class ParticleLinear(nn.Module):
    """One linear layer per particle, as one batched product.

    Args:
        particles: n, >= 1.
        inputs: number of input features, >= 1.
        outputs: number of output features, >= 1.
        rng: CPU generator for the weights, uniform within 1 / sqrt(inputs) as in `torch.nn.Linear`.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, particles: int, inputs: int, outputs: int, rng: torch.Generator) -> None:
        require(">= 1", particles=particles, inputs=inputs, outputs=outputs)
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter((2 * torch.rand(particles, inputs, outputs, generator=rng) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(particles, 1, outputs, generator=rng) - 1) * bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, P, inputs) -> (n, P, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


def particle_mlp(
    particles: int, inputs: int, width: int, depth: int, outputs: int, rng: torch.Generator
) -> nn.Sequential:
    """One MLP per particle with `depth` hidden layers of `width` SiLU units: (n, P, inputs) -> (n, P, outputs)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [ParticleLinear(particles, inputs, width, rng), nn.SiLU()]
        inputs = width
    return nn.Sequential(*layers, ParticleLinear(particles, inputs, outputs, rng))


class Head(nn.Module, ABC):
    """From features to raw values. A subclass implements `forward` and, if it has parameters, `allocate`."""

    def allocate(self, particles: int, features: int, rng: torch.Generator, channels: int = 3) -> None:
        """Create the parameters of n particles.

        Args:
            particles: n >= 1.
            features: features F of a point.
            rng: CPU generator for initial values.
            channels: channels C of a color.

        Raises:
            ValueError: if the head does not support that number of features.
        """
        del particles, features, rng, channels

    @abstractmethod
    def forward(self, features: Tensor, particle: Tensor) -> Tensor:
        """Raw values of points.

        Args:
            features: (P, F), sorted by particle.
            particle: (P,) index of each point's particle, non-decreasing.

        Returns:
            (P, 1 + C): the density's pre-activation, then the color's logits.
        """


class DirectHead(Head):
    """The identity: the features are the raw density and the color's logits, as in a `DenseGrid` of 4 channels."""

    def allocate(self, particles: int, features: int, rng: torch.Generator, channels: int = 3) -> None:
        if features != 1 + channels:
            raise ValueError(f"DirectHead needs an encoding of {1 + channels} features, got {features}; use MLPHead")

    def forward(self, features: Tensor, particle: Tensor) -> Tensor:
        return features


class MLPHead(Head):
    """A small network per particle.

    Args:
        width: units per hidden layer, >= 1.
        depth: number of hidden layers, >= 0.
    """

    def __init__(self, width: int = 32, depth: int = 1) -> None:
        require(">= 1", width=width)
        require(">= 0", depth=depth)
        super().__init__()
        self.width = width
        self.depth = depth

    def allocate(self, particles: int, features: int, rng: torch.Generator, channels: int = 3) -> None:
        self.net = particle_mlp(particles, features, self.width, self.depth, 1 + channels, rng)

    def forward(self, features: Tensor, particle: Tensor) -> Tensor:
        n = len(next(self.net.parameters()))
        if n == 1:
            return self.net(features[None])[0]
        # Ragged segments are padded to one batch, so that the n networks are one product.
        counts = torch.bincount(particle, minlength=n)
        slot = torch.arange(len(particle), device=particle.device) - (counts.cumsum(0) - counts)[particle]
        longest = int(counts.max())
        place = particle * longest + slot
        padded = features.new_zeros(n * longest, features.shape[1]).index_copy(0, place, features)
        return self.net(padded.view(n, longest, features.shape[1])).flatten(0, 1).index_select(0, place)
