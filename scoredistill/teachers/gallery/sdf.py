"""Signed distance to a family of solids: spheres, boxes, cylinders, cones, tori, capsules and tubes.

A solid of the family is a rounded rectangle in the plane (x, z), optionally hollowed to a wall, extruded along y,
widened linearly toward the bottom, inflated by `edge` and cut at `x >= clip`:

    q = signed distance to the rounded rectangle (half sides a and c, corner radius r)     q <- |q + w| - w for a wall
    d = signed distance of (q, y) to the trapezium {|y| <= h, q <= taper (h - y) / 2h} - edge

q is 1-Lipschitz in (x, z), so (x, y, z) -> (q, y) does not stretch distances, and d is a 1-Lipschitz lower bound of the
distance for all parameters. Without a wall it is convex in (x, y, z). With one formula for all solids, all parts are
evaluated in one vectorized call.

The construction follows the uber primitive of Leonard Ritter and others, https://www.shadertoy.com/view/MsVGWG, 2016.
Primitives and rules of composition: Inigo Quilez, https://iquilezles.org/articles/distfunctions, 2008.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SHAPE_ROWS = 10
"""Numbers that describe a solid: a, c, r, w, h, taper, 2h, 1 / (taper^2 + 4 h^2), edge, clip."""


def shape_row(
    a: float = 0.0,
    c: float = 0.0,
    r: float = 0.0,
    h: float = 0.0,
    taper: float = 0.0,
    edge: float = 0.0,
    wall: float | None = None,
    clip: float | None = None,
) -> tuple[float, ...]:
    """The numbers that describe a solid, in the order of `distance`. Lengths are in the solid's units."""
    slant = taper * taper + 4 * h * h
    wall = min(a, c) + r + 1.0 if wall is None else wall  # thicker than the solid, so that |q + w| - w = q
    clip = -1e6 if clip is None else clip
    return a, c, r, wall, h, taper, 2 * h, 1 / slant if slant > 0 else 0.0, edge, clip


def distance(shape: Sequence[Tensor], x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Signed distance in the solid's frame, negative inside.

    Args:
        shape: `SHAPE_ROWS` tensors that broadcast with the coordinates.
        x, y, z: coordinates, any one shape.
    """
    a, c, r, wall, h, taper, height, slant, edge, clip = shape
    u, v = x.abs() - a, z.abs() - c
    q = (u.clamp(min=0).square_().addcmul_(v.clamp(min=0), v.clamp(min=0))).sqrt_()
    q = q.add_(torch.maximum(u, v).clamp_(max=0)).sub_(r)
    q = q.add_(wall).abs_().sub_(wall)
    top = y - h
    bottom = y + h
    along = (q * taper).addcmul_(top, height, value=-1).mul_(slant).clamp_(0, 1)
    side_q = torch.addcmul(q, taper, along, value=-1)
    side_y = torch.addcmul(top, height, along)
    squared = side_q.square_().addcmul_(side_y, side_y)
    low_q = (q - taper).clamp_(min=0)
    high_q = q.clamp(min=0)
    torch.minimum(squared, low_q.square_().addcmul_(bottom, bottom), out=squared)
    torch.minimum(squared, high_q.square_().addcmul_(top, top), out=squared)
    # Negative inside the trapezium. A flat trapezium (h = taper = 0) has no interior and gives +0 here.
    side = torch.maximum((q * height).addcmul_(top, taper), y.abs() - h)
    return torch.maximum(squared.sqrt_().copysign_(side).sub_(edge), clip - x)


def gradient(shape: Sequence[Tensor], x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distance's gradient in the solid's frame, a unit vector wherever the distance is differentiable.

    Args:
        shape: as for `distance`.
        x, y, z: coordinates, any one shape.
    """
    a, c, r, wall, h, taper, height, slant, edge, clip = shape
    u, v = x.abs() - a, z.abs() - c
    out_u, out_v = u.clamp(min=0), v.clamp(min=0)
    length = (out_u * out_u + out_v * out_v).sqrt()
    beside = length > 0
    safe = torch.where(beside, length, 1.0)
    signed = length + torch.maximum(u, v).clamp(max=0) - r + wall
    q = signed.abs() - wall
    q_x = torch.where(beside, out_u / safe, (u >= v).to(x)) * x.sign() * signed.sign()
    q_z = torch.where(beside, out_v / safe, (u < v).to(x)) * z.sign() * signed.sign()

    top = y - h
    bottom = y + h
    along = ((q * taper - top * height) * slant).clamp(0, 1)
    # Vectors from the nearest point of each of the trapezium's edges to (q, y). The shortest is the gradient.
    near_q = q - taper * along
    near_y = top + height * along
    near = near_q * near_q + near_y * near_y
    for other_q, other_y in (((q - taper).clamp(min=0), bottom), (q.clamp(min=0), top)):
        other = other_q * other_q + other_y * other_y
        closer = other < near
        near_q, near_y = torch.where(closer, other_q, near_q), torch.where(closer, other_y, near_y)
        near = torch.minimum(near, other)
    inside = torch.maximum(q * height + top * taper, y.abs() - h) < 0
    norm = near.sqrt()
    scale = norm.clamp(min=torch.finfo(x.dtype).tiny).reciprocal()
    scale = torch.where(inside, -scale, scale)
    cut = clip - x > torch.where(inside, -norm, norm) - edge
    return (
        torch.where(cut, -1.0, near_q * scale * q_x),
        torch.where(cut, 0.0, near_y * scale),
        torch.where(cut, 0.0, near_q * scale * q_z),
    )
