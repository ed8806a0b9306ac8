"""Backgrounds: colors behind the scenes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoredistill.generators.fields.encodings import Frequency
from scoredistill.generators.fields.heads import particle_mlp
from scoredistill.ranges import require


class Background(nn.Module, ABC):
    """Colors behind the scene, in [-1, 1]. A subclass implements `forward` and, if it has parameters, `allocate`."""

    def allocate(self, particles: int, rng: torch.Generator, channels: int = 3) -> None:
        """Create the parameters of n particles.

        Args:
            particles: n >= 1.
            rng: CPU generator for initial values.
            channels: channels C of a color.

        Raises:
            ValueError: if the background does not support C channels.
        """
        del particles, rng
        if channels != 3:
            raise ValueError(f"background: {type(self).__name__} has no latents: use LearnedBackground")

    @abstractmethod
    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        """Colors behind the rays.

        Args:
            directions: (V, P, 3) unit directions of each view's rays.
            particles: n.
            drawn: (V, 4) uniform numbers in [0, 1) for random colors; None: deterministic.

        Returns:
            (n, V, P, C), or (n, V, 1, C) if each view has one color, which then becomes the sample's
            `Condition.background`.
        """


def _color(value: Sequence[float]) -> Tensor:
    color = torch.tensor(tuple(value), dtype=torch.float32)
    if color.shape != (3,) or color.abs().max() > 1:
        raise ValueError(f"a background color must be three values in [-1, 1], got {tuple(value)}")
    return color


class SolidBackground(Background):
    """One color.

    Args:
        color: red, green, blue in [-1, 1]; default white.
    """

    color: Tensor

    def __init__(self, color: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        require("[-1, 1]", color=color)
        super().__init__()
        self.register_buffer("color", _color(color), persistent=False)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        return self.color.to(directions).expand(particles, len(directions), 1, 3)


class RandomBackground(Background):
    """A random color per view, the same for all particles, so that a scene cannot imitate the background.

    Args:
        probability: probability of a random color, uniform in [-1, 1]^3, in [0, 1]; otherwise `color`.
        color: the fixed color, also used in evaluation, in [-1, 1]; default white.
    """

    color: Tensor

    def __init__(self, probability: float = 0.5, color: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        require("[0, 1]", probability=probability)
        require("[-1, 1]", color=color)
        super().__init__()
        self.probability = probability
        self.register_buffer("color", _color(color), persistent=False)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        color = self.color.to(directions).expand(len(directions), 3)
        if drawn is not None:
            drawn = drawn.to(directions)
            color = torch.where(drawn[:, :1] < self.probability, 2 * drawn[:, 1:] - 1, color)
        return color[None, :, None].expand(particles, -1, 1, -1)


class LearnedBackground(Background):
    """A small network per particle, from the ray's direction to a color, or to latents in scenes of latents.

    Args:
        octaves: number of frequencies of the direction's encoding, >= 0.
        width: units of the one hidden layer, >= 1.
        random: probability of a random color per view in place of the network's, uniform in [-1, 1]^3, in [0, 1].
    """

    def __init__(self, octaves: int = 3, width: int = 16, random: float = 0.0) -> None:
        require(">= 0", octaves=octaves)
        require(">= 1", width=width)
        require("[0, 1]", random=random)
        super().__init__()
        self.width = width
        self.random = random
        self.encoding = Frequency(octaves)

    def allocate(self, particles: int, rng: torch.Generator, channels: int = 3) -> None:
        if channels != 3 and self.random:
            raise ValueError("background: random colors are not available for latents: set random: 0")
        self.channels = channels
        self.net = particle_mlp(particles, self.encoding.features, self.width, 1, channels, rng)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        flat = directions.flatten(0, 1)
        features = self.encoding(flat, flat.new_zeros(len(flat), dtype=torch.long))
        raw = self.net(features.expand(particles, -1, -1)).unflatten(1, directions.shape[:2])
        if self.channels != 3:
            return raw
        color = 2 * raw.sigmoid() - 1
        if drawn is None or not self.random:
            return color
        drawn = drawn.to(color)
        return torch.where(drawn[:, None, :1] < self.random, 2 * drawn[:, None, 1:] - 1, color)
