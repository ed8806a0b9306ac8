"""The radiance field: density and color at points."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from scoredistill.generators.fields.encodings import Encoding
from scoredistill.generators.fields.heads import Head
from scoredistill.generators.nerf.initial import Initial

Activation = Literal["softplus", "exp"]
"""From the raw value to density: softplus, or an exponential that is clamped at e^10 against overflow."""


class Field(nn.Module):
    """Density and color of n scenes:

        raw = head(encoding(x)) + initial(x)
        density = activation(raw_0),    color = 2 sigmoid(raw_1..3) - 1, or the latents raw_1..C

    Args:
        encoding, head, initial: modules that are allocated for the same number of particles.
        activation: see `Activation`.
        latent: whether colors are latents.
    """

    def __init__(
        self, encoding: Encoding, head: Head, initial: Initial, activation: Activation, latent: bool = False
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.head = head
        self.initial = initial
        self.activation = activation
        self.latent = latent

    def forward(self, points: Tensor, particle: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate density and color.

        Args:
            points: (P, 3) in [-1, 1]^3, sorted by particle.
            particle: (P,) index of each point's particle, non-decreasing.

        Returns:
            density (P,) >= 0 per world unit, and color, (P, 3) in [-1, 1], or latents (P, C).
        """
        raw = self.head(self.encoding(points, particle), particle) + self.initial(points, particle)
        density = softplus(raw[:, 0]) if self.activation == "softplus" else raw[:, 0].clamp(max=10).exp()
        return density, raw[:, 1:] if self.latent else 2 * raw[:, 1:].sigmoid() - 1

    def with_normals(self, points: Tensor, particle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density, color and outward unit normals, -grad density / |grad density|.

        The normals are differentiable in the parameters if gradients are enabled.

        Returns:
            density (P,), color (P, C) and normals (P, 3), which are zero where density is locally constant.
        """
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            density, color = self(points, particle)
            (slope,) = torch.autograd.grad(density.sum(), points, create_graph=differentiable)
        # The floor keeps the derivative of the norm finite at zero.
        normals = -slope / (slope.square().sum(1, keepdim=True) + 1e-12).sqrt()
        return (density, color, normals) if differentiable else (density.detach(), color.detach(), normals)
