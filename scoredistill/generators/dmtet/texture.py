"""The texture of a surface: a color field in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from scoredistill.generators.fields.encodings import Encoding
from scoredistill.generators.fields.heads import Head
from scoredistill.generators.nerf.field import Field

STEPS = 200
RATE = 0.05
POINTS = 1 << 12
"""Steps, learning rate and points per particle and step of the Adam optimizer that fits a texture."""


class Texture(nn.Module):
    """color = 2 sigmoid(head(encoding(x))_1..3 + bias) - 1.

    Encodings and heads are those of a NeRF. The head's first output, a NeRF's density, is not used.

    Args:
        encoding, head: modules that are allocated for the same number of particles.
        bias: (n, 3) logits, which differ between particles.
    """

    bias: Tensor

    def __init__(self, encoding: Encoding, head: Head, bias: Tensor) -> None:
        super().__init__()
        self.encoding = encoding
        self.head = head
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, field: Field, particles: int) -> Texture:
        """The colors of a NeRF's field. The initial color is taken at the origin."""
        like = next(field.parameters())
        bias = field.initial(like.new_zeros(particles, 3), torch.arange(particles, device=like.device))[:, 1:]
        return cls(field.encoding, field.head, bias)

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        """Evaluate colors.

        Args:
            points: (P, 3), sorted by particle; points outside [-1, 1]^3 are clamped to it.
            particle: (P,) index of each point's particle, non-decreasing.

        Returns:
            (P, 3) in [-1, 1].
        """
        points = points.clamp(-1, 1)
        raw = self.head(self.encoding(points, particle), particle)[:, 1:]
        return 2 * (raw + self.bias.index_select(0, particle)).sigmoid() - 1

    @torch.no_grad()
    def copy(self, other: Texture, points: Tensor, particle: Tensor) -> bool:
        """Copy another texture's parameters if this gives the same colors at points (P, 3).

        Equal shapes are not enough: a `HashGrid` with another finest level has parameters of the same shape.

        Returns:
            Whether the colors are the same. If not, the parameters are in an undefined state.
        """
        target, source = self.state_dict(), other.state_dict()
        if {k: v.shape for k, v in target.items()} != {k: v.shape for k, v in source.items()}:
            return False
        self.load_state_dict(source)
        return torch.allclose(self(points, particle), other(points, particle), atol=1e-4)

    def fit(self, color: Callable[[Tensor, int], Tensor], near: Sequence[Tensor], spread: float) -> None:
        """Fit the colors of another field near a surface, with Adam on the mean squared error.

        Args:
            color: from points (P, 3) and a particle's index to colors (P, 3) in [-1, 1].
            near: (M_i, 3) points on each of the n particles' surfaces; a particle without points keeps its colors.
            spread: standard deviation of the training points around these points.
        """
        rng = torch.Generator().manual_seed(0)
        present = [i for i, points in enumerate(near) if len(points)]
        trained = [p.requires_grad for p in self.parameters()]
        self.requires_grad_(True)
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE)
        for step in range(STEPS if present else 0):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            points = torch.cat([_around(near[i], spread, rng) for i in present]).clamp(-1, 1)
            particle = torch.tensor(present, device=points.device).repeat_interleave(POINTS)
            with torch.no_grad():
                target = torch.cat([color(p, i) for p, i in zip(points.split(POINTS), present, strict=True)])
            optimizer.zero_grad()
            with torch.enable_grad():
                mse_loss(self(points, particle), target.to(points)).backward()
            optimizer.step()
        optimizer.zero_grad()
        for parameter, requires_grad in zip(self.parameters(), trained, strict=True):
            parameter.requires_grad_(requires_grad)


def _around(points: Tensor, spread: float, rng: torch.Generator) -> Tensor:
    index = torch.randint(len(points), (POINTS,), generator=rng).to(points.device)
    return points[index] + spread * torch.randn(POINTS, 3, generator=rng).to(points)
