"""Extraction of a radiance field's surface as a mesh."""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from scoredistill.generators.nerf.field import Field
from scoredistill.rendering.mesh import Mesh, marching_cubes, surface_level

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
