"""Sphere tracing, part by part.

A ray's first hit with a union is the nearest of its first hits with the parts. So each pair of a ray and a part whose
box it hits is traced separately, in the part's frame, where also a stretched solid has an exact distance.

Steps are longer than in plain sphere tracing. Let f be the distance along the ray and f'' >= -k (k = 0 for a convex
solid, whose distance is convex). If the last two samples f0, f1 are a step s0 apart, the slope at the second satisfies
-f' <= g = (f0 - f1) / s0 + k s0 / 2, so f(s) >= f1 - g s - k s^2 / 2, and there is no root before

    s = 2 f1 / (g + sqrt(g^2 + 2 k f1))

For k = 0 this is the secant method, which approaches the root from one side, and s = inf means a miss, once f grows.
A concave surface with radius of curvature c has f'' >= -1 / (c - f), so k = 2 / c is valid while f <= c / 2, that is,
while f1, s0 and s are below c / 4.

"Sphere tracing: a geometric method for the antialiased ray tracing of implicit surfaces" (1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.teachers.gallery.sdf import SHAPE_ROWS, distance, gradient
from scoredistill.teachers.gallery.table import Table

STEPS = 64
"""Steps after which a ray counts as a miss, about twice the number that the slowest rays need."""


@dataclass(frozen=True)
class Hits:
    """First hits of N rays with the scene.

    Args:
        depth: (N,) distance along the unit ray, inf without a hit.
        part: (N,) index of the part, -1 without a hit.
        normal: (3, N) outward unit normal, 0 without a hit.
    """

    depth: Tensor
    part: Tensor
    normal: Tensor


def tolerance(dtype: torch.dtype) -> float:
    """Gap along the ray that counts as a hit. After the last step the gap is about its square."""
    return 0.3 * torch.finfo(dtype).eps ** 0.5


def trace(table: Table, origin: Tensor, direction: Tensor, ray: Tensor, part: Tensor, rays: int) -> Hits:
    """First hits of N rays among Q candidate pairs of a ray and a part.

    Args:
        table: the parts.
        origin, direction: (3, Q) ray of each pair, with unit direction.
        ray, part: (Q,) indices.
        rays: N.
    """
    chosen = table.columns[:18].index_select(1, part)  # one gather for all columns that transform a ray
    inverse = chosen[:9].view(3, 3, -1)
    center = chosen[9:12]
    box = chosen[12:]
    o = (inverse * (origin - center)).sum(1)
    d = (inverse * direction).sum(1)
    near, far = _slab(box[:3], box[3:], o, d)
    hit = (near < far).nonzero()[:, 0]
    ray, part = ray.index_select(0, hit), part.index_select(0, hit)
    shape = table.columns[18:].index_select(1, part)
    o, d = o.index_select(1, hit), d.index_select(1, hit)
    depth = _march(shape, o, d, near.index_select(0, hit), far.index_select(0, hit))

    nearest = depth.new_full((rays,), torch.inf).scatter_reduce_(0, ray, depth, "amin")
    won = (depth.isfinite() & (depth == nearest.index_select(0, ray))).nonzero()[:, 0]
    owner = part.new_full((rays,), -1).scatter_reduce_(0, ray[won], part[won], "amax")
    won = won[part[won] == owner[ray[won]]]  # if two parts tie, one of them
    point = torch.addcmul(o.index_select(1, won), d.index_select(1, won), depth[won])
    slope = torch.stack(gradient(shape[:SHAPE_ROWS].index_select(1, won).unbind(0), *point.unbind(0)))
    back = chosen[:9].index_select(1, hit[won]).view(3, 3, -1)
    outward = (back * slope[:, None]).sum(0)  # a gradient is mapped back by the transpose
    normal = outward.new_zeros(3, rays).index_copy_(1, ray[won], outward * outward.square().sum(0).rsqrt())
    return Hits(nearest, owner, normal)


def _slab(low: Tensor, high: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave their boxes, (Q,) each; the entry is at least 0."""
    d = torch.where(d.abs() < 1e-12, 1e-12, d)
    first, second = (low - o) / d, (high - o) / d
    return torch.minimum(first, second).amax(0).clamp(min=0), torch.maximum(first, second).amin(0)


def _march(shape: Tensor, o: Tensor, d: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Depth (Q,) of the first root of each pair's distance in [near, far], or inf. `shape` (11, Q) includes bend."""
    depth = torch.full_like(near, torch.inf)
    close = tolerance(near.dtype)
    slow = d.square().sum(0).rsqrt_()  # world length of a unit along the ray in the solid's frame
    # The state is one matrix, so that dropping finished pairs is a single gather. The sample before the first is
    # infinitely far from the surface, so that the first step is a plain one.
    before = torch.stack([slow, far, near, near - 1, torch.full_like(near, torch.inf)])
    state = torch.cat([shape, o, d, before])
    state[SHAPE_ROWS] /= slow
    pair = torch.arange(len(near), device=near.device)
    for _ in range(STEPS):
        rows = state.unbind(0)
        curve, ox, oy, oz, dx, dy, dz, slow, far, t, t_before, gap_before = rows[SHAPE_ROWS:]
        gap = distance(rows[:SHAPE_ROWS], torch.addcmul(ox, dx, t), torch.addcmul(oy, dy, t), torch.addcmul(oz, dz, t))
        gap *= slow
        moved = _step(gap, gap_before, t - t_before, curve).add_(t)
        hit, within = gap < close, moved < far
        going = within & ~hit
        t_before.copy_(t)
        gap_before.copy_(gap)
        # A pair that has hit still takes its last step, which makes it far more precise. Finished pairs stay in the
        # state, misses at infinity, until a gather is worth its cost.
        torch.where(within, moved, torch.where(hit, t, torch.inf), out=t)
        left = int(going.count_nonzero())
        if left < 0.6 * len(t):
            depth.index_copy_(0, pair, t)
            kept = going.nonzero()[:, 0]
            state, pair = state.index_select(1, kept), pair.index_select(0, kept)
        if left == 0:
            break
    depth[pair] = torch.inf
    return depth


def _step(gap: Tensor, gap_before: Tensor, moved: Tensor, curve: Tensor) -> Tensor:
    """A step that does not pass the surface: at least the gap, and inf for a miss."""
    fall = torch.addcmul((gap_before - gap) / moved, curve, moved, value=0.5)
    root = 2 * gap / (fall + torch.addcmul(fall * fall, curve, gap, value=2).sqrt_())
    reach = 0.5 / curve
    known = torch.maximum(gap, moved) < reach
    return torch.where(known, torch.maximum(gap, torch.minimum(root, reach)), gap)
