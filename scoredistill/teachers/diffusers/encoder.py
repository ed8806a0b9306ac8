"""The text encoders of a pipeline, which are there only while they read."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from scoredistill.teachers.diffusers.loading import Source, quietly
from scoredistill.types import TextEmbeddings

Reads = Callable[[Any, list[str], torch.device], TextEmbeddings]
"""From a pipeline, texts and the device where its encoders are to the texts' embeddings."""


class TextEncoder(Protocol):
    """What makes embeddings of prompts."""

    @property
    def key(self) -> str:
        """Stable name of model, weights and precision: equal keys, equal embeddings."""

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embeddings of at least one text, a row each, as the pipeline itself would make them."""

    def truncations(self, text: str) -> list[tuple[str, str]]:
        """What of a text is read and what is cut off, for each tokenizer that cuts something off."""

    def release(self) -> None:
        """Free the encoders' memory; a later `encode` loads them again."""


class PipelineEncoder:
    """The tokenizers and text encoders of a pipeline, asked by its own `encode_prompt` and loaded when they are.

    Args:
        source: the pipeline.
        reads: how its `encode_prompt` is asked.
        dtype: of the encoders' weights.
        device: where they work, asked anew each time.
        parts: of the pipeline that `encode_prompt` looks at, by name; others but the encoders are left out.
    """

    def __init__(
        self,
        source: Source,
        reads: Reads,
        dtype: torch.dtype,
        device: Callable[[], torch.device],
        parts: dict[str, object],
    ) -> None:
        self.source, self.reads, self.dtype, self.device, self.parts = source, reads, dtype, device, parts
        self._pipeline: Any = None

    @property
    def key(self) -> str:
        """Class, weights and precision. A folder's weights are told by their files' sizes and times."""
        source, files = self.source, hashlib.sha256()
        folder = Path(source.model)
        for part in (*source.parts("text_encoder"), *source.parts("tokenizer")):
            for file in sorted((folder / part).glob("*")):
                status = file.stat()
                files.update(f"{part}/{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        weights = files.hexdigest() if source.commit is None else f"{source.model}@{source.commit}"
        return f"{source.name} {weights} {source.variant} {self.dtype}"

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        device = self.device()
        with quietly():
            return self.reads(self._loaded(device), list(texts), device)

    def release(self) -> None:
        self._pipeline = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def truncations(self, text: str) -> list[tuple[str, str]]:
        found = []
        for tokenizer, length in self._tokenizers:
            room = length - tokenizer.num_special_tokens_to_add()
            ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
            if len(ids) > room:
                found.append((tokenizer.decode(ids[:room]), tokenizer.decode(ids[room:])))
        return found

    def _loaded(self, device: torch.device) -> Any:
        """The pipeline with its encoders on the device, and nothing else of its own."""
        if self._pipeline is None:
            parts = dict(self.parts)
            for part in self.source.parts("tokenizer"):
                parts[part] = self.source.read(part)
            for part in self.source.parts("text_encoder"):
                parts[part] = self.source.read(part, self.dtype).to(device).requires_grad_(False)
            self._pipeline = self.source.pipeline(parts)
        return self._pipeline

    @cached_property
    def _tokenizers(self) -> list[tuple[Any, int]]:
        """Each tokenizer with the number of tokens that its encoder reads."""
        import diffusers

        asked = inspect.signature(getattr(diffusers, self.source.name).encode_prompt).parameters
        # Of T5 a pipeline reads as many tokens as its `encode_prompt` says by default, DeepFloyd IF's 77.
        t5 = asked["max_sequence_length"].default if "max_sequence_length" in asked else 77
        tokenizers = [self.source.read(part) for part in self.source.parts("tokenizer")]
        return [(each, t5 if type(each).__name__.startswith("T5") else each.model_max_length) for each in tokenizers]
