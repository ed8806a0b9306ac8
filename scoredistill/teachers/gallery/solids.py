"""Parts of scenes: solids with a material and a position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoredistill.teachers.gallery.sdf import shape_row

EDGE = 0.02
"""Default radius of rounded edges. It is above zero, because a sharp edge has no normal and aliases."""


def _rotation(axis: str, degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return torch.tensor(rows[axis], dtype=torch.float64)


@dataclass(frozen=True)
class Part:
    """A solid, its affine map to the world, and its material.

    Args:
        shape: numbers from `sdf.shape_row`.
        material: name of the material, a key of the model's colors.
        linear: (3, 3) float64, solid to world: a rotation times a diagonal stretch.
        center: (3,) float64, position of the solid's origin.
        bend: 2 / c for a solid whose smallest concave radius of curvature is c, in its own units; 0 if it is convex.
    """

    shape: tuple[float, ...]
    material: str
    linear: Tensor
    center: Tensor
    bend: float = 0.0

    def at(self, x: float, y: float, z: float) -> Part:
        """Moved by (x, y, z)."""
        return replace(self, center=self.center + torch.tensor([x, y, z], dtype=torch.float64))

    def turned(self, axis: str, degrees: float) -> Part:
        """Turned about a world axis through the origin, right-handed."""
        rotation = _rotation(axis, degrees)
        return replace(self, linear=rotation @ self.linear, center=rotation @ self.center)

    def resized(self, scale: float) -> Part:
        """Scaled about the origin."""
        return replace(self, linear=scale * self.linear, center=scale * self.center)

    def support(self, directions: Tensor) -> Tensor:
        """max over the solid's points p of p . direction, (N, 3) -> (N,), without the cut.

        Its maximum over unit directions is the distance of the farthest point from the origin.
        """
        a, c, r, _, h, taper, _, _, edge, _ = self.shape
        x, y, z = (directions @ self.linear).unbind(-1)
        flat = (x * x + z * z).sqrt()
        ends = torch.maximum(h * y, taper * flat - h * y)
        reach = a * x.abs() + c * z.abs() + r * flat + ends + edge * (flat * flat + y * y).sqrt()
        return reach + directions @ self.center

    def box(self) -> tuple[list[float], list[float]]:
        """Lower and upper corner of the solid's bounding box in its own frame."""
        a, c, r, _, h, taper, _, _, edge, clip = self.shape
        x = a + r + taper + edge
        y = h + edge
        z = c + r + taper + edge
        return [max(-x, clip), -y, -z], [x, y, z]


def _part(material: str, bend: float = 0.0, stretch: tuple[float, float, float] = (1, 1, 1), **shape: float) -> Part:
    linear = torch.diag(torch.tensor(stretch, dtype=torch.float64))
    return Part(shape_row(**shape), material, linear, torch.zeros(3, dtype=torch.float64), bend)


def sphere(material: str, radius: float) -> Part:
    """A ball around the origin."""
    return _part(material, edge=radius)


def ellipsoid(material: str, x: float, y: float, z: float) -> Part:
    """An ellipsoid with half axes x, y, z."""
    return _part(material, stretch=(x, y, z), edge=1.0)


def dome(material: str, x: float, y: float, z: float, cut: float = 0.0) -> Part:
    """The part of an ellipsoid above a relative height `cut` in (-1, 1); 0: the upper half."""
    # The solid is cut along its x axis, so it is turned upright, and the stretch with it.
    linear = _rotation("z", 90) @ torch.diag(torch.tensor([y, x, z], dtype=torch.float64))
    return replace(_part(material, edge=1.0, clip=cut), linear=linear)


def box(material: str, x: float, y: float, z: float, edge: float = EDGE) -> Part:
    """A box with half sides x, y, z, which include the rounded edges of radius `edge`."""
    return _part(material, a=x - edge, c=z - edge, h=y - edge, edge=edge)


def cylinder(material: str, radius: float, half: float, edge: float = EDGE) -> Part:
    """An upright cylinder of half height `half`, with rims rounded by `edge`."""
    return _part(material, r=radius - edge, h=half - edge, edge=edge)


def cone(material: str, bottom: float, top: float, half: float, edge: float = EDGE) -> Part:
    """An upright truncated cone with radii `bottom` and `top`, rounded by `edge`."""
    if top > bottom:
        return cone(material, top, bottom, half, edge).turned("z", 180)
    return _part(material, r=max(top - edge, 0.0), taper=bottom - max(top, edge), h=half - edge, edge=edge)


def pyramid(material: str, x: float, z: float, inset: float, half: float, edge: float = EDGE) -> Part:
    """A block whose half sides x, z decrease by `inset` from bottom to top, for roofs and hulls."""
    return _part(material, a=x - inset - edge, c=z - inset - edge, taper=inset, h=half - edge, edge=edge)


def capsule(material: str, radius: float, half: float) -> Part:
    """An upright segment of half length `half`, inflated by `radius`."""
    return _part(material, h=half, edge=radius)


def torus(material: str, radius: float, tube: float) -> Part:
    """A ring around the y axis; `radius` is the distance to the middle of a tube of radius `tube`."""
    return _part(material, bend=2 / (radius - tube), r=radius, wall=0.0, edge=tube)


def cup(material: str, radius: float, half: float, wall: float) -> Part:
    """An upright tube, open at both ends, with outer radius `radius`, wall thickness `wall` and round rims."""
    edge = 0.45 * wall
    return _part(material, bend=2 / (radius - wall), r=radius - edge, h=half - edge, wall=0.5 * wall - edge, edge=edge)


def stretched(part: Part, x: float, y: float, z: float) -> Part:
    """Stretch a solid along its axes. It must not have been turned."""
    return replace(part, linear=part.linear @ torch.diag(torch.tensor([x, y, z], dtype=torch.float64)))
