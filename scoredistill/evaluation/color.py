"""Chroma of pictures, and distances between them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""Matrix from linear sRGB to XYZ, D65."""


def chroma(pictures: Tensor) -> Tensor:
    """Chroma of CIELAB at every pixel, C* = sqrt(a*^2 + b*^2): 0 for grays, 105 for pure red, 134 for pure blue.

        a* = 500 (f(X / X_n) - f(Y / Y_n)),    b* = 200 (f(Y / Y_n) - f(Z / Z_n))

    XYZ are those of sRGB under D65, and f is the cube root, linear near black (CIE 15, Colorimetry).

    Args:
        pictures: (..., 3, H, W) sRGB in [-1, 1]; other values are clamped.

    Returns:
        (..., H, W), >= 0.
    """
    display = ((pictures + 1) / 2).clamp(0, 1)
    linear = torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(_TO_XYZ, dtype=display.dtype, device=display.device)
    xyz = torch.einsum("ij,...jhw->...ihw", to_xyz / to_xyz.sum(1, keepdim=True), linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(-3)
    return torch.hypot(500 * (x - y), 200 * (y - z))


def mean_chroma(pictures: Tensor, opacity: Tensor) -> Tensor | None:
    """Mean chroma of the foreground pixels, whose opacity is above one half; None without a foreground.

    Args:
        pictures: (..., 3, H, W) in [-1, 1].
        opacity: (..., H, W) in [0, 1].
    """
    foreground = opacity > 0.5
    return chroma(pictures)[foreground].mean() if bool(foreground.any()) else None


def mean_pair_distance(x: Tensor) -> Tensor | None:
    """Mean root-mean-square difference between two of n scenes from the same views; None for fewer than two.

    Args:
        x: (n, V, ...): n scenes from V views each; views are compared one by one.
    """
    pairs = [(x[i] - x[j]).flatten(1).square().mean(1).sqrt().mean() for i, j in combinations(range(len(x)), 2)]
    return torch.stack(pairs).mean() if pairs else None
