"""The density and color of n particles at points, and the surface in a density."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from scoredistill.generators.fields.encodings import Encoding
from scoredistill.generators.fields.heads import Head
from scoredistill.generators.nerf.initial_density import Initial
from scoredistill.rendering.mesh import Mesh, marching_cubes, surface_level

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


_INVISIBLE = 5e-4
"""Density below which even the longest path through the box, 2 sqrt(3), changes no 8-bit picture."""

_SMALLEST = 1e-10
"""Smallest density that is distinguished from zero, so that the logarithm is finite."""


@torch.no_grad()
def surface(field: Field, particle: int, resolution: int, threshold: float | None, chunk: int) -> Mesh:
    """The surface of one particle's scene, with colors at its vertices unless the scene is made of latents.

    Args:
        field: density and color.
        particle: index of the particle.
        resolution: lattice points along each axis, >= 2.
        threshold: density at the surface; None: see `_default`.
        chunk: maximum number of points in one evaluation of the field.

    Raises:
        NoSurfaceError: if there is no surface at that density. The message gives the range of densities.
        ValueError: if a density is not finite.
    """
    like = next(field.parameters())
    axis = torch.linspace(-1, 1, resolution).to(like)

    def at(points: Tensor) -> tuple[Tensor, Tensor]:
        return field(points, torch.full_like(points[:, 0], particle, dtype=torch.long))

    flat = torch.arange(resolution**3, device=like.device).split(chunk)
    places = (torch.stack(torch.unravel_index(index, (resolution,) * 3), dim=-1) for index in flat)
    values = torch.cat([at(axis[place])[0] for place in places])
    low = max(float(values.min()), _SMALLEST)
    high = float(values.max())
    faintest = _INVISIBLE if threshold is None else 2 * _SMALLEST
    subject = f"particle {particle}"
    threshold = surface_level(low, high, threshold, lambda: _default(low, high), subject, "density", faintest, 1e-3)
    # Density grows exponentially through a surface, so its logarithm interpolates better between points.
    logarithm = values.clamp(min=_SMALLEST).log().view((resolution,) * 3)
    mesh = marching_cubes(logarithm, log(threshold))
    if field.latent:
        return mesh
    return replace(mesh, colors=(colors(field, mesh.vertices, particle, chunk) + 1) / 2)


@torch.no_grad()
def colors(field: Field, points: Tensor, particle: int, chunk: int) -> Tensor:
    """Colors of one particle's scene at points (P, 3), clamped to the box: (P, 3) in [-1, 1], in the points' dtype.

    Raises:
        ValueError: if the scenes are made of latents.
    """
    if field.latent:
        raise ValueError("scenes of latents have no colors; decode their pictures with the teacher")
    place = points.to(next(field.parameters())).clamp(-1, 1)
    index = torch.full_like(place[:, 0], particle, dtype=torch.long)
    parts = [field(*block)[1] for block in zip(place.split(chunk), index.split(chunk), strict=True)]
    return torch.cat(parts).to(points)


def _default(low: float, high: float) -> float:
    """The density at which two cells of a 64^3 lattice absorb half of the light, or half of the highest density if that
    is less. If the lowest density is above that, the geometric mean of the extremes.
    """
    usual = min(log(2) * 16, high / 2)
    return usual if usual > 1.001 * low else (low * high) ** 0.5
