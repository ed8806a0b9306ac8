"""The color of a particle's surface, as a field in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from scoredistill.generators.fields.encodings import Encoding
from scoredistill.generators.fields.heads import Head
from scoredistill.generators.nerf.field import Field

STEPS, RATE, POINTS = 200, 0.05, 1 << 12
"""Adam's steps, its learning rate, and the points of each particle in a step, when a texture is fitted."""


class Texture(nn.Module):
    """color = 2 sigmoid(head(encoding(x))_1..3 + bias) - 1.

    Encodings and heads are the NeRF's; a head's first value, there the density, is not used.

    Args:
        encoding, head: already allocated for the same number of particles.
        bias: (n, 3) logits, which make the particles' colors differ.
    """

    bias: Tensor

    def __init__(self, encoding: Encoding, head: Head, bias: Tensor) -> None:
        super().__init__()
        self.encoding, self.head = encoding, head
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, field: Field, particles: int) -> Texture:
        """The colors of a NeRF's field, without what its initial density does to them away from the origin."""
        like = next(field.parameters())
        bias = field.initial(like.new_zeros(particles, 3), torch.arange(particles, device=like.device))[:, 1:]
        return cls(field.encoding, field.head, bias)

    def forward(self, points: Tensor, particle: Tensor) -> Tensor:
        """Colors.

        Args:
            points: (P, 3) in [-1, 1]^3, sorted by particle; points outside have the color of the nearest one inside.
            particle: (P,) non-decreasing index of each point's particle.

        Returns:
            (P, 3) in [-1, 1].
        """
        points = points.clamp(-1, 1)
        raw = self.head(self.encoding(points, particle), particle)[:, 1:]
        return 2 * (raw + self.bias.index_select(0, particle)).sigmoid() - 1

    @torch.no_grad()
    def copy(self, other: Texture, points: Tensor, particle: Tensor) -> bool:
        """Take over another texture's parameters, if they fit and then give the same colors at (P, 3) points.

        Of parameters of one shape an encoding may make different things: a `HashGrid` with another finest level.

        Returns:
            Whether that was so; if not, the parameters are in no useful state.
        """
        mine, theirs = self.state_dict(), other.state_dict()
        if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
            return False
        self.load_state_dict(theirs)
        return torch.allclose(self(points, particle), other(points, particle), atol=1e-4)

    def fit(self, color: Callable[[Tensor, int], Tensor], near: Sequence[Tensor], spread: float) -> None:
        """Learn the colors of another field near a surface, by Adam on the mean squared error.

        Args:
            color: of points (P, 3), and a particle's index, (P, 3) in [-1, 1].
            near: points of each particle's surface, (M_i, 3), n of them; a particle without any keeps its colors.
            spread: standard deviation of the points learned around these.
        """
        rng = torch.Generator().manual_seed(0)
        shown = [i for i, points in enumerate(near) if len(points)]
        trained = [p.requires_grad for p in self.parameters()]
        self.requires_grad_(True)
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE)
        for step in range(STEPS if shown else 0):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            points = torch.cat([_around(near[i], spread, rng) for i in shown]).clamp(-1, 1)
            particle = torch.tensor(shown, device=points.device).repeat_interleave(POINTS)
            with torch.no_grad():
                wanted = torch.cat([color(p, i) for p, i in zip(points.split(POINTS), shown, strict=True)])
            optimizer.zero_grad()
            with torch.enable_grad():
                mse_loss(self(points, particle), wanted.to(points)).backward()
            optimizer.step()
        optimizer.zero_grad()
        for parameter, was in zip(self.parameters(), trained, strict=True):
            parameter.requires_grad_(was)


def _around(points: Tensor, spread: float, rng: torch.Generator) -> Tensor:
    index = torch.randint(len(points), (POINTS,), generator=rng).to(points.device)
    return points[index] + spread * torch.randn(POINTS, 3, generator=rng).to(points)
