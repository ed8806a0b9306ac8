"""Pictures of n particles: what was found along the rays, over the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.generators.nerf.march import March, Tensors
from scoredistill.generators.nerf.sampling import Block
from scoredistill.rendering.volume import accumulate


@dataclass(frozen=True)
class Render:
    """Pictures of n particles from V views.

    Args:
        rgb: (n, V, 3, H, W) in [-1, 1], over the background; (n, V, C, H, W) of scenes of latents.
        opacity: (n, V, H, W) in [0, 1].
        depth: (n, V, H, W) mean distance from the camera of what is seen, 0 where opacity is under one tenth.
        normals: (n, V, 3, H, W) outward unit normals in world axes, 0 where opacity is under one tenth.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor


def over(colour: Tensor, opacity: Tensor, behind: Tensor) -> Tensor:
    """Colours over a background.

    Args:
        colour: (n, R, C), weighted by opacity.
        opacity: (n, R).
        behind: (n, V, 1 or R / V, C).

    Returns:
        (n, V, R / V, C).
    """
    shape = (len(colour), behind.shape[1], -1)
    return colour.reshape(*shape, colour.shape[-1]) + (1 - opacity.reshape(*shape, 1)) * behind


def all_sums(found: March, block: Block) -> Tensors:
    """Per ray of a block, weighted by opacity: colour (n, R, C), opacity, distance (n, R) and normals (n, R, 3)."""
    assert found.normals is not None
    normals = accumulate(found.weights, found.row, len(found.opacity), found.normals)
    sums = (found.colour, found.opacity, found.distance, normals)
    return tuple(x.unflatten(0, (-1, block.last - block.first)) for x in sums)


def channels(sums: Sequence[Tensor], behind: Tensor) -> Tensor:
    """Colour over a background, opacity, depth and normals of one view.

    Args:
        sums: of `all_sums`, of all the view's rays.
        behind: (n, 1, 1 or R, C).

    Returns:
        (n, R, C + 5), the channels in that order.
    """
    colour, opacity, distance, normals = sums
    opacity = opacity[..., None]
    shape = torch.cat([distance[..., None] / opacity.clamp(min=0.1), normalize(normals, dim=-1)], dim=-1)
    return torch.cat([over(colour, opacity, behind)[:, 0], opacity, torch.where(opacity < 0.1, 0, shape)], dim=-1)
