"""Rendered pictures, and compositing over a background."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Render:
    """Pictures of n particles from V views.

    Args:
        rgb: (n, V, 3, H, W) colors in [-1, 1] over the background, or latents (n, V, C, H, W).
        opacity: (n, V, H, W) in [0, 1].
        depth: (n, V, H, W) mean distance from the camera to the visible surface, 0 where opacity is below one tenth.
        normals: (n, V, 3, H, W) outward unit normals in world axes, 0 where opacity is below one tenth.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor


def composite_over(color: Tensor, opacity: Tensor, background: Tensor) -> Tensor:
    """Composite colors over a background.

    Args:
        color: (n, R, C), premultiplied by opacity.
        opacity: (n, R).
        background: (n, V, 1 or R / V, C).

    Returns:
        (n, V, R / V, C).
    """
    shape = (len(color), background.shape[1], -1)
    return color.reshape(*shape, color.shape[-1]) + (1 - opacity.reshape(*shape, 1)) * background
