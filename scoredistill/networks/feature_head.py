"""Small networks on another network's features."""

from __future__ import annotations

from torch import Tensor, nn

from scoredistill.ranges import require


class FeatureHead(nn.Module):
    """One number per sample from features, averaged over their positions.

    A map (B, width, H, W) is processed by two convolutions with stride 2, which are sensitive to positions; vectors
    (B, width) and tokens (B, L, width) by two linear layers.

    Args:
        width: channels of the features, >= 1.
        hidden: channels of the hidden layers, >= 1.
        spatial: whether the features are a map.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, width: int, hidden: int, spatial: bool) -> None:
        require(">= 1", width=width, hidden=hidden)
        super().__init__()
        self.spatial = spatial
        if spatial:
            self.first: nn.Module = nn.Conv2d(width, hidden, 3, stride=2, padding=1)
            self.second: nn.Module = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        else:
            self.first = nn.Linear(width, hidden)
            self.second = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features to (B,)."""
        hidden = nn.functional.silu(self.second(nn.functional.silu(self.first(features))))
        if self.spatial:
            hidden = hidden.flatten(2).mean(2)
        elif hidden.ndim == 3:
            hidden = hidden.mean(1)
        return self.out(hidden)[:, 0]
