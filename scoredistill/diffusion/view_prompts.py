"""Prompts that name the view of the object."""

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
"""Indices of the views."""


@dataclass(frozen=True)
class ViewPrompts:
    """View texts appended to a prompt, chosen or blended by each row's camera.

    With a = the azimuth's angle from the front in degrees, 0 to 180 on both sides of the object:

        chosen:         front  a <= front_threshold     back  180 - a <= back_threshold     side  otherwise
        interpolated:   front  max(0, 1 - a / 90)       back  max(0, a / 90 - 1)            side  1 - front - back

    Above overhead_threshold only overhead is used. The interpolated weights blend the texts'
    embeddings; they sum to 1, are continuous in the azimuth, and select a single text at 0, 90 and 180 degrees.

    "DreamFusion: Text-to-3D using 2D Diffusion" (2022), arXiv:2209.14988 (chosen);
    "Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and Beyond"
    (2023), arXiv:2304.04968 (interpolated).

    Args:
        front, side, back, overhead: text appended to a prompt that is not empty.
        front_threshold: degrees to either side of azimuth 0, in (0, 180).
        back_threshold: degrees to either side of azimuth 180, in (0, 180); both together at most 180.
        overhead_threshold: elevation in degrees, in (0, 90].
        interpolate: whether embeddings are blended; teachers without embeddings get the chosen text.

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
        """The prompt with the front, side, back and overhead text: four texts, or four sequences of texts."""
        if isinstance(prompt, str):
            return [*self._worded(prompt)]
        return [*zip(*map(self._worded, prompt), strict=True)]

    def text(self, prompt: Prompt, camera: Camera) -> tuple[str, ...]:
        """The prompt with the text chosen for each of B cameras, B texts."""
        views = self.chosen(camera.azimuth, camera.elevation).tolist()
        prompts = [prompt] * len(views) if isinstance(prompt, str) else prompt
        return tuple(self._worded(text)[view] for text, view in zip(prompts, views, strict=True))

    def _worded(self, text: str) -> list[str]:
        return [text + words if text else "" for words in (self.front, self.side, self.back, self.overhead)]

    def chosen(self, azimuth: Tensor, elevation: Tensor) -> Tensor:
        """The chosen view of each camera.

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
    """Weights of front, side and back, linear between 0, 90 and 180 degrees; (B,) -> (B, 3)."""
    quarter = from_front(azimuth) / 90
    front = (1 - quarter).clamp(min=0)
    back = (quarter - 1).clamp(min=0)
    return torch.stack([front, 1 - front - back, back], 1)


def blend(parts: Sequence[TextEmbeddings], weights: Tensor) -> TextEmbeddings:
    """The weighted sum of several embeddings, row by row. A token is unmasked if it is in any part of nonzero weight.

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
    """sum_k w_k part_k, at least in float32: in half precision the weights would not sum to 1."""
    weights = weights.to(torch.promote_types(parts[0].dtype, torch.float32))
    total = weights[:, 0] * parts[0]
    for k in range(1, len(parts)):
        total = total + weights[:, k] * parts[k]
    return total.to(parts[0].dtype)
