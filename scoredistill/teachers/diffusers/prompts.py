"""Embeddings of prompts: each text is encoded once and cached on disk, then the text encoders are released."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scoredistill.diffusion.view_prompts import ViewPrompts, blend
from scoredistill.files import write_atomically
from scoredistill.types import Condition, Prompt, TextEmbeddings

if TYPE_CHECKING:
    from scoredistill.teachers.diffusers.encoder import TextEncoder

USER = "user"
"""Value of `folder` for `scoredistill/prompts` in the user's cache directory."""


@dataclass(frozen=True)
class Reading:
    """The text encoders' result for one text.

    Args:
        embeddings: one row, on the CPU.
        truncated: the used and the cut part of the text, for each tokenizer that truncates it.
    """

    embeddings: TextEmbeddings
    truncated: tuple[tuple[str, str], ...] = ()


class EmbeddingCache:
    """One safetensors file per text, named by the SHA-256 hash of the encoders' key and the text.

    The file also contains key and text. A damaged or unrelated file is ignored with a warning, and replaced. Files are
    written atomically, so processes can share a folder. If the folder is not writable, there is a warning, and its
    files are still read.

    Args:
        folder: folder of the files, created if necessary; user: in the user's cache directory.
        key: identifies the encoders.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.folder = user_folder() if folder == USER else Path(folder).expanduser()
        self.key = key
        self._writable = True

    def path(self, text: str) -> Path:
        """Path of the text's file, whether or not it exists."""
        name = hashlib.sha256(json.dumps([self.key, text]).encode()).hexdigest()
        return self.folder / f"{name}.safetensors"

    def read(self, text: str) -> Reading | None:
        """The stored result for a text; None if there is no valid file."""
        from safetensors import SafetensorError, safe_open

        path = self.path(text)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                embeddings = TextEmbeddings(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            if (about["key"], about["text"], len(embeddings)) != (self.key, text, 1):
                raise ValueError("it was written for another text")
            return Reading(embeddings, tuple((kept, cut) for kept, cut in about["truncated"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            warnings.warn(
                f"prompts.cache: ignoring {path}, which is not the embedding of {text!r}: {error}", stacklevel=2
            )
            return None

    def write(self, text: str, reading: Reading) -> None:
        """Store the result for a text."""
        from safetensors.torch import save

        if not self._writable:
            return
        embeddings = reading.embeddings
        parts = {"tokens": embeddings.tokens, "pooled": embeddings.pooled, "mask": embeddings.mask}
        about = json.dumps({"key": self.key, "text": text, "truncated": reading.truncated})
        content = save({name: part.contiguous() for name, part in parts.items() if part is not None}, {"about": about})
        try:
            write_atomically(self.path(text), lambda file: file.write(content))
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"prompts.cache: cannot write to {self.folder}, so the next run will load the text encoders again; set "
                f"another folder, or null for no cache: {error}",
                stacklevel=2,
            )


def user_folder() -> Path:
    """`scoredistill/prompts` in $XDG_CACHE_HOME, or in ~/.cache if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scoredistill" / "prompts"


@dataclass(frozen=True)
class PromptSettings:
    """Settings for encoding prompts.

    Args:
        views: view words for conditions with cameras, for example `{interpolate: true}`; None: no view words.
        negative: negative prompt of conditions without one; None: the empty text.
        cache: folder that stores embeddings between runs; user: `scoredistill/prompts` in the user's cache directory,
            $XDG_CACHE_HOME or ~/.cache; None: memory only.
    """

    views: ViewPrompts | None = None
    negative: str | None = None
    cache: str | None = USER


class PromptEmbedder:
    """Embeddings of prompts from memory, from disk or from the text encoders, in this order.

    `encode_prompt` encodes a condition's prompt and adds view words and the negative prompt of the settings. Guidance's
    other branches are encoded literally, by `literal`: a negative prompt "blurry, side view" instead of "blurry" would
    push away from the side view.

    Args:
        encoder: the pipeline's tokenizers and text encoders, released after each use.
        settings: settings for encoding; None: no view words, no negative prompt, the user's cache.
    """

    def __init__(self, encoder: TextEncoder, settings: PromptSettings | None = None) -> None:
        self.encoder = encoder
        self.settings = settings or PromptSettings()
        cache = self.settings.cache
        self._cache = None if cache is None else EmbeddingCache(cache, encoder.key)
        self._known: dict[str, TextEmbeddings] = {}

    def encode_prompt(
        self, condition: Condition | None, rows: int | None, device: torch.device | str = "cpu"
    ) -> Condition | None:
        """Add the embeddings of the prompt with its cameras' view words, and the negative prompt.

        All texts for the condition and for guidance's other branch, with the words of all views, are encoded in one
        call of the encoders.

        Args:
            condition: None, or a condition with embeddings, is returned unchanged; no prompt means the empty text.
            rows: B, if the condition does not determine it; None: the condition is then returned unchanged.
            device: device of the embeddings.

        Raises:
            ValueError: if there are several prompts, but not one per row.
        """
        rows = rows if condition is None or condition.rows is None else condition.rows
        if condition is None or condition.embeddings is not None or rows is None:
            return condition
        negative = self.settings.negative if condition.negative_prompt is None else condition.negative_prompt
        prompt = condition.prompt or ""
        views = self.settings.views
        camera = condition.camera
        prompts = [prompt] if views is None or camera is None else views.texts(prompt)
        self._load([text for each in (*prompts, negative or "") for text in listed(each)])
        parts = [self._rows(each, rows, device) for each in prompts]
        if views is None or camera is None:
            return replace(condition, negative_prompt=negative, embeddings=parts[0])
        weights = views.weights(camera.azimuth, camera.elevation)
        return replace(condition, negative_prompt=negative, embeddings=blend(parts, weights))

    def literal(self, condition: Condition | None, rows: int, device: torch.device | str = "cpu") -> Condition:
        """Add the embeddings of the prompt, without view words.

        Args:
            condition: a condition with embeddings is returned unchanged; None, or no prompt, means the empty text.
            rows: B.
            device: device of the embeddings.

        Raises:
            ValueError: if there are several prompts, but not one per row.
        """
        condition = Condition() if condition is None else condition
        if condition.embeddings is not None:
            return condition
        return replace(condition, embeddings=self._rows(condition.prompt or "", rows, device))

    def texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> TextEmbeddings:
        """Embeddings of texts, one row each. New texts are encoded in one call of the encoders.

        Args:
            texts: at least one text.
            device: device of the embeddings.
        """
        self._load(texts)
        distinct = list(dict.fromkeys(texts))
        for text in distinct:
            self._known[text] = self._known[text].to(device)
        table = TextEmbeddings.cat([self._known[text] for text in distinct])
        if len(distinct) == len(texts):
            return table
        row = {text: i for i, text in enumerate(distinct)}
        return table[torch.tensor([row[text] for text in texts], device=device)]

    def _rows(self, prompt: Prompt, rows: int, device: torch.device | str) -> TextEmbeddings:
        """B rows, which share memory for a single text."""
        texts = listed(prompt)
        if not isinstance(prompt, str) and len(texts) != rows:
            raise ValueError(f"there are {len(texts)} prompts for {rows} rows: use one prompt, or one per row")
        return expanded(self.texts(texts[:1], device), rows) if len(set(texts)) == 1 else self.texts(texts, device)

    def _load(self, texts: Sequence[str]) -> None:
        """Put texts into memory, from disk or from the encoders, and warn about truncated ones."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        cached = {text: None if self._cache is None else self._cache.read(text) for text in missing}
        new = [text for text, reading in cached.items() if reading is None]
        readings = {text: reading for text, reading in cached.items() if reading is not None} | self._encode(new)
        for text in missing:
            self._known[text] = readings[text].embeddings
            for kept, cut in dict.fromkeys(readings[text].truncated):
                warnings.warn(
                    f"the prompt {text!r} is too long for a text encoder, which uses {kept!r} and cuts off {cut!r}",
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
            text: Reading(embeddings[torch.tensor([i])], truncated[i])  # a copy, so that the batch can be freed
            for i, text in enumerate(texts)
        }
        if self._cache is not None:
            for text, reading in readings.items():
                self._cache.write(text, reading)
        return readings


def listed(prompt: Prompt) -> list[str]:
    """The texts of a prompt as a list."""
    return [prompt] if isinstance(prompt, str) else list(prompt)


def expanded(embeddings: TextEmbeddings, rows: int) -> TextEmbeddings:
    """Expand one row to B rows that share its memory."""
    pooled, mask = (None if part is None else part.expand(rows, -1) for part in (embeddings.pooled, embeddings.mask))
    return TextEmbeddings(embeddings.tokens.expand(rows, -1, -1), pooled, mask)
