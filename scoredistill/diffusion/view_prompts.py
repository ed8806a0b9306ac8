"""Prompts that say from where the object is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scoredistill.ranges import require
from scoredistill.types import Prompt, TextEmbeddings

if TYPE_CHECKING:
    from scoredistill.rendering.camera import Camera

FRONT, SIDE, BACK, OVERHEAD = range(4)
"""The views' columns."""


@dataclass(frozen=True)
class ViewPrompts:
    """A prompt's words about the view, chosen or blended by each row's camera.

    With a = the azimuth's angle from the front in degrees, 0 to 180 on both sides of the object:

        chosen:         front  a <= front_threshold     back  180 - a <= back_threshold     side  otherwise
        interpolated:   front  max(0, 1 - a / 90)       back  max(0, a / 90 - 1)            side  1 - front - back

    and overhead alone where the elevation is at least overhead_threshold. The interpolated weights blend the texts'
    embeddings; they sum to 1, are continuous in the azimuth, and one text's alone at 0, 90 and 180 degrees.

    DreamFusion: Text-to-3D using 2D Diffusion, 2022, arXiv:2209.14988 (chosen); Re-imagine the Negative Prompt
    Algorithm, 2023, arXiv:2304.04968 (interpolated).

    Args:
        front, side, back, overhead: what is appended to a prompt that is not empty.
        front_threshold: degrees to either side of azimuth 0, in (0, 180).
        back_threshold: degrees to either side of azimuth 180, in (0, 180); both together at most 180.
        overhead_threshold: elevation in degrees, in (0, 90].
        interpolate: whether embeddings are blended; teachers that read texts themselves are given the chosen one.

    Raises:
        ValueError: for a threshold outside its range.
    """

    front: str = ", front view"
    side: str = ", side view"
    back: str = ", back view"
    overhead: str = ", overhead view"
    front_threshold: float = 45.0
    back_threshold: float = 45.0
    overhead_threshold: float = 60.0
    interpolate: bool = False

    def __post_init__(self) -> None:
        require("(0, 180)", front_threshold=self.front_threshold, back_threshold=self.back_threshold)
        require("(0, 90]", overhead_threshold=self.overhead_threshold)
        if self.front_threshold + self.back_threshold > 180:
            raise ValueError(
                "front_threshold and back_threshold must be at most 180 degrees together; got "
                f"{self.front_threshold} and {self.back_threshold}"
            )

    def texts(self, prompt: Prompt) -> list[Prompt]:
        """The prompt as front, side, back and overhead word it, four of what it is: a text or a sequence of texts."""
        if isinstance(prompt, str):
            return [*self._worded(prompt)]
        return [*zip(*map(self._worded, prompt), strict=True)]

    def text(self, prompt: Prompt, camera: Camera) -> tuple[str, ...]:
        """The prompt in the words that are chosen for each of B cameras; B texts."""
        views = self.chosen(camera.azimuth, camera.elevation).tolist()
        prompts = [prompt] * len(views) if isinstance(prompt, str) else prompt
        return tuple(self._worded(text)[view] for text, view in zip(prompts, views, strict=True))

    def _worded(self, text: str) -> list[str]:
        return [text + words if text else "" for words in (self.front, self.side, self.back, self.overhead)]

    def chosen(self, azimuth: Tensor, elevation: Tensor) -> Tensor:
        """The one view of each camera.

        Args:
            azimuth, elevation: (B,) degrees.

        Returns:
            (B,) integers, 0 front, 1 side, 2 back, 3 overhead.
        """
        angle = from_front(azimuth)
        view = torch.full_like(angle, SIDE, dtype=torch.long)
        view = view.masked_fill(angle <= self.front_threshold, FRONT)
        view = view.masked_fill(180 - angle <= self.back_threshold, BACK)
        return view.masked_fill(elevation >= self.overhead_threshold, OVERHEAD)

    def weights(self, azimuth: Tensor, elevation: Tensor) -> Tensor:
        """Weight of each view's embeddings, (B,) and (B,) degrees -> (B, 4), rows summing to 1."""
        chosen = one_hot(self.chosen(azimuth, elevation), 4).to(azimuth)
        if not self.interpolate:
            return chosen
        between = torch.cat([shares(azimuth), torch.zeros_like(azimuth)[:, None]], 1)
        return torch.where((elevation >= self.overhead_threshold)[:, None], chosen, between)


def from_front(azimuth: Tensor) -> Tensor:
    """The angle between an azimuth and the front, (B,) degrees -> [0, 180], the same on both sides."""
    return 180 - (azimuth % 360 - 180).abs()


def shares(azimuth: Tensor) -> Tensor:
    """How much of front, side and back an azimuth shows: linear between 0, 90 and 180 degrees; (B,) -> (B, 3)."""
    quarter = from_front(azimuth) / 90
    front, back = (1 - quarter).clamp(min=0), (quarter - 1).clamp(min=0)
    return torch.stack([front, 1 - front - back, back], 1)


def blend(parts: Sequence[TextEmbeddings], weights: Tensor) -> TextEmbeddings:
    """The weighted sum of several embeddings, row by row; a token counts where it does in any part that has weight.

    Args:
        parts: K embeddings of B rows and equal shapes.
        weights: (B, K).
    """
    weights = weights.to(parts[0].tokens.device)
    masks = [part.mask for part in parts if part.mask is not None]
    seen = [mask * (weights[:, k, None] > 0).to(mask.dtype) for k, mask in enumerate(masks)]
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return TextEmbeddings(
        _weighted([part.tokens for part in parts], weights[:, :, None, None]),
        _weighted(pooled, weights[:, :, None]) if pooled else None,
        torch.stack(seen).amax(0) if seen else None,
    )


def _weighted(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_k w_k part_k, at least in float32: half precision would not let weights sum to 1."""
    weights = weights.to(torch.promote_types(parts[0].dtype, torch.float32))
    total = weights[:, 0] * parts[0]
    for k in range(1, len(parts)):
        total = total + weights[:, k] * parts[k]
    return total.to(parts[0].dtype)
