"""What is seen where the object lets light through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoredistill.annealing import require_at_least
from scoredistill.generators.nerf.encodings import Frequency
from scoredistill.generators.nerf.heads import particle_mlp


class Background(nn.Module, ABC):
    """Colours behind the scene, in [-1, 1]. A subclass implements `forward`; `allocate` is as in `Encoding`."""

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        """Create the parameters of n particles."""
        del particles, rng

    @abstractmethod
    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        """Colours behind the rays.

        Args:
            directions: (V, P, 3) unit directions of each view's rays.
            particles: n.
            drawn: (V, 4) uniform numbers in [0, 1) for random colours; None asks for a deterministic one.

        Returns:
            (n, V, P, 3), or (n, V, 1, 3) where a view has one colour, which then becomes the sample's
            `Condition.background`.
        """


def _colour(value: Sequence[float]) -> Tensor:
    colour = torch.tensor(tuple(value), dtype=torch.float32)
    if colour.shape != (3,) or colour.abs().max() > 1:
        raise ValueError(f"a background colour is three values in [-1, 1], got {tuple(value)}")
    return colour


class SolidBackground(Background):
    """One colour.

    Args:
        colour: red, green, blue in [-1, 1]; default white.
    """

    colour: Tensor

    def __init__(self, colour: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.register_buffer("colour", _colour(colour), persistent=False)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        return self.colour.to(directions).expand(particles, len(directions), 1, 3)


class RandomBackground(Background):
    """A colour drawn for each view, the same for all particles, so that empty space cannot paint itself.

    Args:
        probability: of a random colour, uniform in [-1, 1]^3; otherwise `colour`.
        colour: the fixed colour, also used wherever nothing may be random; default white.
    """

    colour: Tensor

    def __init__(self, probability: float = 0.5, colour: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {probability}")
        self.probability = probability
        self.register_buffer("colour", _colour(colour), persistent=False)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        colour = self.colour.to(directions).expand(len(directions), 3)
        if drawn is not None:
            drawn = drawn.to(directions)
            colour = torch.where(drawn[:, :1] < self.probability, 2 * drawn[:, 1:] - 1, colour)
        return colour[None, :, None].expand(particles, -1, 1, -1)


class LearnedBackground(Background):
    """A small network of the ray's direction for each particle.

    Args:
        octaves: frequencies of the direction's encoding, >= 0.
        width: hidden units of the one hidden layer, >= 1.
    """

    def __init__(self, octaves: int = 3, width: int = 16) -> None:
        super().__init__()
        require_at_least(1, width=width)
        self.width = width
        self.encoding = Frequency(octaves)

    def allocate(self, particles: int, rng: torch.Generator) -> None:
        self.net = particle_mlp(particles, self.encoding.features, self.width, 1, 3, rng)

    def forward(self, directions: Tensor, particles: int, drawn: Tensor | None = None) -> Tensor:
        flat = directions.flatten(0, 1)
        features = self.encoding(flat, flat.new_zeros(len(flat), dtype=torch.long))
        colour = 2 * self.net(features.expand(particles, -1, -1)).sigmoid() - 1
        return colour.unflatten(1, directions.shape[:2])
