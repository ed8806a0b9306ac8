"""Rendering of a table of models: the light from each material at each pixel, with antialiased edges.

Shading does not depend on the camera (one fixed lamp, and light from the sky) and is linear in the albedo:

    color = albedo (FILL + SKY (1 + n_y) / 2 + LAMP max(0, (1 + 2 n . l) / 3))

so a pixel is sum_g light_g albedo_g + (1 - opacity) background, exactly, for materials g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery.table import Table
from scoredistill.teachers.gallery.trace import Hits, trace

LAMP_DIRECTION = (0.45, 0.7, 0.55)
FILL = 0.40
SKY = 0.20
LAMP = 0.40
"""Shares of uniform light, light from above and lamp light. Their sum is 1, so that colors are in [0, 1]."""

CONTRAST = 0.06
"""Difference in shading between neighboring pixels above which they are supersampled."""

PAIRS_AT_ONCE = 1 << 22
"""Maximum number of pairs of a ray and a part in one test, which bounds memory."""


@dataclass(frozen=True)
class Light:
    """Renders of K models from V cameras, before colors are applied.

    Args:
        light: (V, K, G, H, W) light at the pixel from material g, if it were white, in [0, 1].
        opacity: (V, K, 1, H, W) covered share of the pixel.
        depth: (V, K, 1, H, W) distance along the ray through the pixel's center; 0 without a hit.
        normals: (V, K, 3, H, W) outward unit normal where that ray hits the surface; 0 without a hit.
        facing: (V, K, 3, H, W) mean of that normal over the pixel's rays.
    """

    light: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor
    facing: Tensor

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(value.nbytes for value in vars(self).values())

    def __getitem__(self, rows: slice) -> Light:
        return Light(*(value[rows] for value in vars(self).values()))


def shading(normal: Tensor) -> Tensor:
    """Factor of the albedo in a surface's color, (..., 3) unit normals -> (...) in [0, 1]."""
    x, y, z = normal.unbind(-1)
    a, b, c = (along / math.hypot(*LAMP_DIRECTION) for along in LAMP_DIRECTION)
    facing = a * x + b * y + c * z
    # The light wraps around the shadow's edge, which gives soft shapes.
    lambert = ((1 + 2 * facing) / 3).clamp(min=0)
    return FILL + SKY * 0.5 * (1 + y) + LAMP * lambert


def render(table: Table, camera: Camera, height: int, width: int, supersample: int) -> Light:
    """Render every model of a table from every camera.

    One ray is traced through each pixel's center. Pixels at an edge, where the material or the shading differs from a
    neighbor's, are then sampled with `supersample` rays that are spread over the pixel.

    Args:
        table: K models, with the camera's device and dtype.
        camera: V cameras.
        height, width: size of the pictures in pixels.
        supersample: rays per pixel at edges; 1: only the central ray.
    """
    models = len(table.members)
    views = len(camera)
    _, directions = camera.rays(height, width)
    flat = directions.reshape(views, height * width, 3)
    hits = _central(table, camera.position, flat)
    picture = (views, models, height, width)
    material, shade = _material_and_shading(table, hits)
    light, opacity = _gather(material[:, None], shade[:, None], table.materials)
    facing = hits.normal.T.clone()
    if supersample > 1:
        edge = _edges(material.reshape(picture), shade.reshape(picture)).reshape(-1).nonzero()[:, 0]
        light[edge], opacity[edge], facing[edge] = _resample(table, camera, edge, flat, picture, supersample)
    hit = hits.part.reshape(picture)[:, :, None] >= 0
    return Light(
        light.reshape(*picture, -1).movedim(-1, 2),
        opacity.reshape(picture)[:, :, None],
        torch.where(hit, hits.depth.reshape(picture)[:, :, None], 0.0),
        hits.normal.reshape(3, *picture).movedim(0, 2),
        facing.reshape(*picture, 3).movedim(-1, 2),
    )


def _central(table: Table, position: Tensor, directions: Tensor) -> Hits:
    """First hits of the rays (V, P, 3) of V cameras with each model, flattened over (V, K, P)."""
    views, pixels = directions.shape[:2]
    models = len(table.members)
    to_part = table.center - position[:, None]  # (V, M, 3)
    least = to_part.square().sum(-1) - table.reach.square()  # the ray hits the ball if along^2 is above this
    candidates = []
    span = max(1, PAIRS_AT_ONCE // (views * len(table.model)))
    for start in range(0, pixels, span):
        along = directions[:, start : start + span] @ to_part.mT  # (V, p, M)
        hits = (along.square() >= least[:, None]) & ((along > 0) | (least[:, None] < 0))
        candidates.append(hits.nonzero() + torch.tensor([0, start, 0], device=hits.device))
    view, pixel, part = torch.cat(candidates).T.contiguous()
    direction = directions.reshape(-1, 3).T.contiguous().index_select(1, view * pixels + pixel)
    ray = (view * models + table.model[part]) * pixels + pixel
    return trace(table, position.T.contiguous().index_select(1, view), direction, ray, part, views * models * pixels)


def _material_and_shading(table: Table, hits: Hits) -> tuple[Tensor, Tensor]:
    """Material and shading of each ray's hit, (N,) each; -1 and 0 without a hit."""
    hit = hits.part >= 0
    material = torch.where(hit, table.material.index_select(0, hits.part.clamp(min=0)), -1)
    return material, torch.where(hit, shading(hits.normal.T), 0.0)


def _gather(material: Tensor, shade: Tensor, materials: int) -> tuple[Tensor, Tensor]:
    """Mean light of each material (N, G) and opacity (N,) over the S samples of N pixels, (N, S) each."""
    light = shade.new_zeros(len(material), materials)
    share = torch.where(material >= 0, shade / material.shape[1], 0.0)
    light.scatter_add_(1, material.clamp(min=0), share)
    return light, (material >= 0).to(shade).mean(1)


def _edges(material: Tensor, shade: Tensor) -> Tensor:
    """Whether one of the four neighbors has another material or shading, (..., H, W) bool."""
    edge = torch.zeros_like(material, dtype=torch.bool)
    for dim in (-1, -2):
        n = material.shape[dim] - 1
        a, b = (material.narrow(dim, i, n) for i in (0, 1))
        c, d = (shade.narrow(dim, i, n) for i in (0, 1))
        step = (a != b) | ((c - d).abs() > CONTRAST)
        edge.narrow(dim, 0, n).logical_or_(step)
        edge.narrow(dim, 1, n).logical_or_(step)
    return edge


def lattice(n: int) -> Tensor:
    """n points in [-1/2, 1/2]^2, (n, 2) float64: a rank-1 lattice with one point in each row and each column."""
    coprime = [k for k in range(1, n + 1) if math.gcd(k, n) == 1]
    step = min(coprime, key=lambda k: abs(k - 0.382 * n))  # a step near 0.382 n, the golden section, spreads them best
    i = torch.arange(n, dtype=torch.float64)
    return torch.stack([(i + 0.5) / n, ((i * step) % n + 0.5) / n], dim=-1) - 0.5


def _resample(
    table: Table, camera: Camera, edge: Tensor, directions: Tensor, picture: tuple[int, ...], samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Light (E, G), opacity (E,) and normal (E, 3) of edge pixels, averaged over `samples` rays."""
    _, models, height, width = picture
    pixels = height * width
    view = edge // (models * pixels)
    model = (edge // pixels) % models
    pixel = edge % pixels
    step = 2 * torch.tan(torch.deg2rad(camera.fov) / 2)[view] / height  # a pixel's side at distance 1 ahead
    pose = camera.pose.permute(1, 2, 0)[:3].index_select(2, view)  # (3, 4, E)
    center = directions.reshape(-1, 3).index_select(0, view * pixels + pixel).T  # (3, E)
    plane = -center / (center * pose[:, 2]).sum(0)  # position of the central ray at distance 1 ahead
    across, up = lattice(samples).to(directions).T
    shift = pose[:, 0, :, None] * across + pose[:, 1, :, None] * up
    sub = torch.addcmul(plane[..., None], shift, step[:, None])  # (3, E, S)
    sub *= sub.square().sum(0).rsqrt_()

    # Balls that a ray of the pixel may hit: the central ray hits them if they are enlarged by half a pixel's diagonal.
    members = table.members.index_select(0, model)  # (E, P)
    to_part = table.center[table.members].index_select(0, model) - pose[:, 3].T[:, None]
    squared = to_part.square().sum(-1)
    wider = table.reach[table.members].index_select(0, model) + squared.sqrt() * step[:, None] * 0.71
    along = (to_part * center.T[:, None]).sum(-1)
    candidates = (squared - along.square() <= wider.square()) & (members >= 0)
    row, member = candidates.nonzero().unbind(-1)
    pairs = row[:, None] * samples + torch.arange(samples, device=edge.device)
    ray = pairs.reshape(-1)
    part = members[row, member].repeat_interleave(samples)
    origin = pose[:, 3].index_select(1, row).repeat_interleave(samples, dim=1)
    hits = trace(table, origin, sub.reshape(3, -1).index_select(1, ray), ray, part, len(edge) * samples)
    material, shade = _material_and_shading(table, hits)
    light, opacity = _gather(material.reshape(-1, samples), shade.reshape(-1, samples), table.materials)
    return light, opacity, hits.normal.reshape(3, -1, samples).mean(-1).T
