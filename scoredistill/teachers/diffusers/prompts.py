"""From prompts to embeddings: each text is read once, kept, and the text encoders released."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from scoredistill.diffusion.view_prompts import ViewPrompts, blend
from scoredistill.teachers.diffusers.cache import USER, EmbeddingCache, Reading
from scoredistill.types import Condition, Prompt, TextEmbeddings

if TYPE_CHECKING:
    from scoredistill.teachers.diffusers.encoder import TextEncoder


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are read.

    Args:
        views: words about the view for conditions with cameras, `{interpolate: true}` for example; null: none.
        negative: the negative prompt of conditions that name none; null: the empty text.
        cache: folder in which embeddings are kept between runs; user: `scoredistill/prompts` in the user's cache
            directory, $XDG_CACHE_HOME or ~/.cache; null: in memory only.
    """

    views: ViewPrompts | None = None
    negative: str | None = None
    cache: str | None = USER


class PromptEmbedder:
    """Embeddings of prompts, from memory, else from disk, else from the text encoders.

    A condition holds the prompt, and `encode_prompt` adds what the settings say: words about the view and the negative
    prompt. Guidance's other branches are read word for word, by `literal`: a negative prompt "blurry" that
    became "blurry, side view" would drive away from the side.

    Args:
        encoder: the pipeline's tokenizers and text encoders, released after each use.
        settings: null: no words about the view, no negative prompt, the user's cache.
    """

    def __init__(self, encoder: TextEncoder, settings: PromptSettings | None = None) -> None:
        self.encoder, self.settings = encoder, settings or PromptSettings()
        cache = self.settings.cache
        self._cache = None if cache is None else EmbeddingCache(cache, encoder.key)
        self._known: dict[str, TextEmbeddings] = {}

    def encode_prompt(
        self, condition: Condition | None, rows: int | None, device: torch.device | str = "cpu"
    ) -> Condition | None:
        """The condition with its prompt's embeddings, in the words of its cameras' views, and its negative prompt.

        All that the condition and guidance's other branch will need, whichever views its cameras show, is read in one
        call of the encoders.

        Args:
            condition: a condition that has embeddings, or None, stays as it is; no prompt is the empty text.
            rows: B, where the condition itself does not say it; None: it stays as it is then too.
            device: where the embeddings are wanted.

        Raises:
            ValueError: if there are several prompts, but not one a row.
        """
        rows = rows if condition is None or condition.rows is None else condition.rows
        if condition is None or condition.embeddings is not None or rows is None:
            return condition
        negative = self.settings.negative if condition.negative_prompt is None else condition.negative_prompt
        prompt, views, camera = condition.prompt or "", self.settings.views, condition.camera
        worded = [prompt] if views is None or camera is None else views.texts(prompt)
        self._learn([text for each in (*worded, negative or "") for text in listed(each)])
        parts = [self._rows(each, rows, device) for each in worded]
        if views is None or camera is None:
            return replace(condition, negative_prompt=negative, embeddings=parts[0])
        weights = views.weights(camera.azimuth, camera.elevation)
        return replace(condition, negative_prompt=negative, embeddings=blend(parts, weights))

    def literal(self, condition: Condition | None, rows: int, device: torch.device | str = "cpu") -> Condition:
        """The condition with its prompt's embeddings, word for word.

        Args:
            condition: one that has embeddings stays as it is; None and no prompt are the empty text.
            rows: B.
            device: where the embeddings are wanted.

        Raises:
            ValueError: if there are several prompts, but not one a row.
        """
        condition = Condition() if condition is None else condition
        if condition.embeddings is not None:
            return condition
        return replace(condition, embeddings=self._rows(condition.prompt or "", rows, device))

    def texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> TextEmbeddings:
        """Embeddings of several texts, a row each; what is not known yet is read in one call of the encoders.

        Args:
            texts: at least one, word for word.
            device: where the embeddings are wanted.
        """
        self._learn(texts)
        distinct = list(dict.fromkeys(texts))
        for text in distinct:
            self._known[text] = self._known[text].to(device)
        table = TextEmbeddings.cat([self._known[text] for text in distinct])
        if len(distinct) == len(texts):
            return table
        row = {text: i for i, text in enumerate(distinct)}
        return table[torch.tensor([row[text] for text in texts], device=device)]

    def _rows(self, prompt: Prompt, rows: int, device: torch.device | str) -> TextEmbeddings:
        """B rows; one text's are views of the same memory."""
        texts = listed(prompt)
        if not isinstance(prompt, str) and len(texts) != rows:
            raise ValueError(f"there are {len(texts)} prompts for {rows} rows: give one text, or one for each row")
        return expanded(self.texts(texts[:1], device), rows) if len(set(texts)) == 1 else self.texts(texts, device)

    def _learn(self, texts: Sequence[str]) -> None:
        """Make texts known, from disk or by the encoders, and say what of them the encoders did not see."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        found = {text: None if self._cache is None else self._cache.read(text) for text in missing}
        unread = [text for text, reading in found.items() if reading is None]
        readings = {text: reading for text, reading in found.items() if reading is not None} | self._encode(unread)
        for text in missing:
            self._known[text] = readings[text].embeddings
            for kept, cut in dict.fromkeys(readings[text].truncated):
                warnings.warn(
                    f"the prompt {text!r} is too long for a text encoder, which reads {kept!r} and not {cut!r}",
                    stacklevel=2,
                )

    def _encode(self, texts: Sequence[str]) -> dict[str, Reading]:
        if not texts:
            return {}
        try:
            with torch.no_grad():
                embeddings = self.encoder.encode(texts).to("cpu")
            truncated = [tuple(self.encoder.truncations(text)) for text in texts]
        finally:
            self.encoder.release()
        readings = {
            text: Reading(embeddings[torch.tensor([i])], truncated[i])  # a copy, which does not hold the whole batch
            for i, text in enumerate(texts)
        }
        if self._cache is not None:
            for text, reading in readings.items():
                self._cache.write(text, reading)
        return readings


def listed(prompt: Prompt) -> list[str]:
    """The texts of a prompt."""
    return [prompt] if isinstance(prompt, str) else list(prompt)


def expanded(embeddings: TextEmbeddings, rows: int) -> TextEmbeddings:
    """One row as B rows that share its memory."""
    pooled, mask = (None if part is None else part.expand(rows, -1) for part in (embeddings.pooled, embeddings.mask))
    return TextEmbeddings(embeddings.tokens.expand(rows, -1, -1), pooled, mask)
