"""Conditions of samples: prompts and their embeddings, class labels, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scoredistill.rendering.camera import Camera


@dataclass(frozen=True)
class TextEmbeddings:
    """The text encoder's output for B prompts.

    Args:
        tokens: (B, L, E) one vector per token.
        pooled: (B, P) one vector per prompt, for networks that take one (SDXL, SD3, FLUX), or None.
        mask: (B, L) 1 for tokens that are attended to, for networks that take a mask (PixArt); None: all tokens.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, value: TextEmbeddings | Tensor) -> TextEmbeddings:
        """Wrap plain tokens (B, L, E); return embeddings unchanged."""
        return cls(value) if isinstance(value, Tensor) else value

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Tensor) -> TextEmbeddings:
        """Select rows by an index tensor of any length."""
        pooled, mask = (None if part is None else part[index] for part in (self.pooled, self.mask))
        return TextEmbeddings(self.tokens[index], pooled, mask)

    @classmethod
    def cat(cls, parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """Concatenate along the batch."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        mask = [part.mask for part in parts if part.mask is not None]
        tokens = torch.cat([part.tokens for part in parts])
        return cls(tokens, torch.cat(pooled) if pooled else None, torch.cat(mask) if mask else None)

    def to(self, target: torch.device | str | torch.dtype) -> TextEmbeddings:
        """Move to a device or convert to a floating-point type; the mask keeps its type."""
        mask = self.mask if isinstance(target, torch.dtype) or self.mask is None else self.mask.to(target)
        return TextEmbeddings(self.tokens.to(target), None if self.pooled is None else self.pooled.to(target), mask)


Prompt = str | Sequence[str]


def rows_of(value: Any, index: Tensor) -> Any:
    """Select rows of one field: tensors and cameras by index, per-sample prompts one by one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return tuple(value[i] for i in index.tolist())
    return value[index]


def moved(value: Any, device: torch.device | str) -> Any:
    """Move a tensor or camera to a device; return anything else unchanged."""
    return value.to(device) if hasattr(value, "to") else value


def cat_values(values: Sequence[Any]) -> Any:
    """Concatenate one field of several conditions."""
    first = values[0]
    if first is None or isinstance(first, str):
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    return type(first).cat(values) if hasattr(first, "cat") else tuple(text for texts in values for text in texts)


@dataclass(frozen=True)
class Condition:
    """What a sample is conditioned on. Every field is optional.

    Args:
        prompt: one text for the whole batch, or a sequence of B texts.
        negative_prompt: text that guidance moves away from, in place of the unconditional model; str or B texts.
        label: (B,) integer class labels; -1 (`networks.NO_LABEL`) in rows without one.
        camera: B cameras from which the samples are seen.
        background: (B, 3) color in [-1, 1] behind the object, for teachers that are conditioned on it.
        embeddings: of the prompt, B rows, or only their tokens (B, L, E); filled in by `Teacher.encode_prompt`.
    """

    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    label: Tensor | None = None
    camera: Camera | None = None
    background: Tensor | None = None
    embeddings: TextEmbeddings | Tensor | None = None

    @property
    def rows(self) -> int | None:
        """Number of rows, or None if no field has one row per sample."""
        for value in (self.label, self.camera, self.background, self.embeddings):
            if value is not None:
                return len(value)
        prompts = [p for p in (self.prompt, self.negative_prompt) if p is not None and not isinstance(p, str)]
        return len(prompts[0]) if prompts else None

    @property
    def views(self) -> Tensor | None:
        """(B,) index of each row's camera and class label: rows with equal ones share it. None: all rows are alike."""
        if self.camera is None:
            return self.label
        rows = torch.cat([self.camera.pose.flatten(1), self.camera.fov[:, None]], 1)
        if self.label is not None:
            rows = torch.cat([rows, self.label[:, None].to(rows)], 1)
        return torch.unique(rows, dim=0, return_inverse=True)[1]

    @property
    def has_prompt_or_label(self) -> bool:
        """Whether there is a prompt or a class label; a camera alone does not count."""
        return self.prompt is not None or self.label is not None

    def negative(self) -> Condition:
        """The unconditional branch of guidance: the same camera and background, with the negative prompt if any."""
        return Condition(prompt=self.negative_prompt, camera=self.camera, background=self.background)

    def with_prompt(self, prompt: Prompt | None) -> Condition:
        """The same condition with another prompt, without embeddings."""
        return replace(self, prompt=prompt, embeddings=None)

    def __getitem__(self, index: Tensor) -> Condition:
        """Select rows by an index tensor of any length."""
        return Condition(**{f.name: rows_of(getattr(self, f.name), index) for f in fields(self)})

    @classmethod
    def cat(cls, parts: Sequence[Condition | None]) -> Condition | None:
        """Concatenate conditions that have the same fields; a text for the whole batch must be the same in all."""
        given = [part for part in parts if part is not None]
        if len(given) != len(parts):
            return None
        return cls(**{f.name: cat_values([getattr(part, f.name) for part in given]) for f in fields(cls)})

    def to(self, device: torch.device | str) -> Condition:
        """Move tensors and cameras to a device."""
        return Condition(**{f.name: moved(getattr(self, f.name), device) for f in fields(self)})
