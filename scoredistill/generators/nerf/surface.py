"""The surface of a particle's scene, as a mesh."""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from scoredistill.generators.nerf.field import Field
from scoredistill.rendering.mesh import Mesh, NoSurfaceError, marching_cubes

_INVISIBLE = 5e-4
"""Density under which even the longest way through the box, 2 sqrt(3), changes no picture of 8 bits."""

_SMALLEST = 1e-10
"""Density that counts as none, for its logarithm has to be finite."""


@torch.no_grad()
def surface(field: Field, particle: int, resolution: int, threshold: float | None, chunk: int) -> Mesh:
    """The surface of one particle's scene, colored at its vertices; without colors where these are latents.

    Args:
        field: density and color.
        particle: its index.
        resolution: lattice points along each axis, >= 2.
        threshold: density at the surface; None: `_default` chooses one.
        chunk: most points given to the field at once.

    Raises:
        NoSurfaceError: if there is none at that density, saying which densities there are.
        ValueError: if a density is not finite.
    """
    like = next(field.parameters())
    axis = torch.linspace(-1, 1, resolution).to(like)

    def at(points: Tensor) -> tuple[Tensor, Tensor]:
        return field(points, torch.full_like(points[:, 0], particle, dtype=torch.long))

    flat = torch.arange(resolution**3, device=like.device).split(chunk)
    places = (torch.stack(torch.unravel_index(index, (resolution,) * 3), dim=-1) for index in flat)
    values = torch.cat([at(axis[place])[0] for place in places])
    threshold = _checked(values, threshold, particle)
    # Density grows exponentially through a surface: its logarithm is what interpolates well between points.
    logarithm = values.clamp(min=_SMALLEST).log().view((resolution,) * 3)
    mesh = marching_cubes(logarithm, log(threshold))
    if field.latent:
        return mesh
    return replace(mesh, colors=(colors(field, mesh.vertices, particle, chunk) + 1) / 2)


@torch.no_grad()
def colors(field: Field, points: Tensor, particle: int, chunk: int) -> Tensor:
    """The colors of one particle's scene at points (P, 3), moved into the box: (P, 3) in [-1, 1], of their dtype.

    Raises:
        ValueError: if the scenes are made of latents.
    """
    if field.latent:
        raise ValueError("the scenes are made of latents, which have no colors; their teacher decodes pictures of them")
    place = points.to(next(field.parameters())).clamp(-1, 1)
    index = torch.full_like(place[:, 0], particle, dtype=torch.long)
    parts = [field(*block)[1] for block in zip(place.split(chunk), index.split(chunk), strict=True)]
    return torch.cat(parts).to(points)


def _checked(values: Tensor, threshold: float | None, particle: int) -> float:
    """The threshold, which lies between the densities' extremes."""
    low, high = max(float(values.min()), _SMALLEST), float(values.max())
    if not bool(values.isfinite().all()):
        raise ValueError(f"particle {particle}: a density is not finite; training has diverged")
    if high < (_INVISIBLE if threshold is None else 2 * _SMALLEST):
        raise NoSurfaceError(
            f"particle {particle} is empty everywhere: its density is at most {high:.3g}, too little to be seen; "
            "no threshold gives a useful surface"
        )
    if high < 1.001 * low:
        raise NoSurfaceError(f"particle {particle} has no surface: its density is {high:.3g} everywhere")
    if threshold is None:
        return _default(low, high)
    if not low < threshold < high:
        raise NoSurfaceError(
            f"particle {particle} has no surface at density {threshold:g}: its densities range from {low:.3g} to "
            f"{high:.5g}; try a threshold of {_default(low, high):.5g}"
        )
    return threshold


def _default(low: float, high: float) -> float:
    """That at which half of the light is lost over two cells of a 64^3 lattice, or half of the highest density if that
    is less, or the geometric mean of the extremes where that is nowhere.
    """
    usual = min(log(2) * 16, high / 2)
    return usual if usual > 1.001 * low else (low * high) ** 0.5
