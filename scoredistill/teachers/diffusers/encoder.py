"""Text encoders of a pipeline, which are in memory only while they encode."""

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
"""From a pipeline, texts and the encoders' device to the texts' embeddings."""


class TextEncoder(Protocol):
    """An encoder of prompts."""

    @property
    def key(self) -> str:
        """Stable name of model, weights and precision: equal keys mean equal embeddings."""

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embeddings of at least one text, one row each, as in the pipeline."""

    def truncations(self, text: str) -> list[tuple[str, str]]:
        """The used and the cut part of a text, for each tokenizer that truncates it."""

    def release(self) -> None:
        """Free the encoders' memory. The next `encode` loads them again."""


class PipelineEncoder:
    """Tokenizers and text encoders of a pipeline, called through its `encode_prompt` and loaded on the first call.

    Args:
        source: the pipeline.
        reads: calls the pipeline's `encode_prompt`.
        dtype: dtype of the encoders' weights.
        device: returns the encoders' device, which may change between calls.
        parts: other parts of the pipeline that `encode_prompt` needs, by name.
    """

    def __init__(
        self,
        source: Source,
        reads: Reads,
        dtype: torch.dtype,
        device: Callable[[], torch.device],
        parts: dict[str, object],
    ) -> None:
        self.source = source
        self.reads = reads
        self.dtype = dtype
        self.device = device
        self.parts = parts
        self._pipeline: Any = None

    @property
    def key(self) -> str:
        """Class, weights and precision. The weights in a folder are identified by their files' sizes and times."""
        source = self.source
        files = hashlib.sha256()
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
        truncations = []
        for tokenizer, length in self._tokenizers:
            limit = length - tokenizer.num_special_tokens_to_add()
            ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
            if len(ids) > limit:
                truncations.append((tokenizer.decode(ids[:limit]), tokenizer.decode(ids[limit:])))
        return truncations

    def _loaded(self, device: torch.device) -> Any:
        """The pipeline with only its text encoders, on the device."""
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
        """Each tokenizer with its encoder's maximum number of tokens."""
        import diffusers

        parameters = inspect.signature(getattr(diffusers, self.source.name).encode_prompt).parameters
        # For T5, the maximum is the default of `encode_prompt`, or 77 in DeepFloyd IF.
        t5 = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else 77
        tokenizers = [self.source.read(part) for part in self.source.parts("tokenizer")]
        return [(each, t5 if type(each).__name__.startswith("T5") else each.model_max_length) for each in tokenizers]
