"""From what was found along the rays to a picture's channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.generators.nerf.march import March, Tensors
from scoredistill.generators.nerf.sampling import Block
from scoredistill.rendering.picture import over
from scoredistill.rendering.volume import accumulate


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
