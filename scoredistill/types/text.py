"""Prompts as a text encoder has read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextEmbeddings:
    """What a text encoder makes of B prompts.

    Args:
        tokens: (B, L, E) one vector a token.
        pooled: (B, P) one vector a prompt, for the networks that take one (SDXL, SD3, FLUX); None: none.
        mask: (B, L) 1 where a token counts, for the networks that take one (PixArt); None: all count.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, value: TextEmbeddings | Tensor) -> TextEmbeddings:
        """Plain tokens (B, L, E), or embeddings as they are."""
        return cls(value) if isinstance(value, Tensor) else value

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Tensor) -> TextEmbeddings:
        """Rows, by an index tensor of any length."""
        pooled, mask = (None if part is None else part[index] for part in (self.pooled, self.mask))
        return TextEmbeddings(self.tokens[index], pooled, mask)

    @classmethod
    def cat(cls, parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """Join the rows of several."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        mask = [part.mask for part in parts if part.mask is not None]
        tokens = torch.cat([part.tokens for part in parts])
        return cls(tokens, torch.cat(pooled) if pooled else None, torch.cat(mask) if mask else None)

    def to(self, target: torch.device | str | torch.dtype) -> TextEmbeddings:
        """On another device or in another floating-point type; the mask keeps its type."""
        mask = self.mask if isinstance(target, torch.dtype) or self.mask is None else self.mask.to(target)
        return TextEmbeddings(self.tokens.to(target), None if self.pooled is None else self.pooled.to(target), mask)
