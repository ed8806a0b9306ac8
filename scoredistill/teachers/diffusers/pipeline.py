"""A text-to-image pipeline of diffusers as the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scoredistill.diffusion.prediction import Prediction
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.storage import find_trained
from scoredistill.ranges import require
from scoredistill.teachers.diffusers.components import Execution, take_apart
from scoredistill.teachers.diffusers.loading import Source
from scoredistill.teachers.diffusers.prompts import PromptEmbedder, PromptSettings, expanded
from scoredistill.teachers.network import cat_common
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, TextEmbeddings
from scoredistill.types.checks import times_of


class DiffusersTeacher(Teacher):
    """A text-to-image pipeline as the model of p: its network, with the noise schedule of its scheduler's config.

    Supported are Stable Diffusion 1 and 2 (epsilon and v; with cameras if the UNet projects 16 numbers into its time
    embedding), SDXL, Stable Diffusion 3, FLUX.1, PixArt-α and PixArt-Σ, and DeepFloyd IF's first stage. Pictures are
    encoded into the pipeline's space. Prompts are encoded by the pipeline's text encoders, which are loaded only for
    new prompts. All conditions that guidance needs at one x_t are evaluated in one call of the network.

    Args:
        model: id on the hub, the folder of a pipeline, or the output folder of the recipe that trains one, whose
            newest finished run is used.
        revision: branch, tag or commit of a hub repository; None: its main branch.
        variant: variant of the weight files, for example fp16; None: the default files.
        dtype: dtype of weights and activations: float32, float16 or bfloat16. Results have the dtype of x_t.
        resolution: height and width to which pictures are resized before encoding, in pixels, >= 1; None: the
            pipeline's own.
        attention: backend of a transformer's attention, under diffusers' name; None: the library's default.
        compile: compile the network, which takes a minute on the first call.
        offload: keep the autoencoder's decoder and the text encoders on the CPU while they are not used.
        checkpointing: recompute activations in the backward pass, which saves memory.
        slicing: encode and decode one picture at a time, which saves memory.
        tiling: encode and decode large pictures in tiles with blended seams, which saves memory.
        prompts: settings for encoding prompts; None: the defaults of `PromptSettings`.
        guidance_embedding: guidance scale that conditions a guidance-distilled FLUX, > 0; None: 1, no guidance.
        trained_by: the recipe that trains the pipeline; `scoredistill fit` runs it first if there is no pipeline.

    Raises:
        ValueError: if there is no such pipeline, its class is not supported, or a setting does not apply to it.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        variant: str | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        resolution: int | None = None,
        attention: str | None = None,
        compile: bool = False,
        offload: bool = False,
        checkpointing: bool = False,
        slicing: bool = False,
        tiling: bool = False,
        prompts: PromptSettings | None = None,
        guidance_embedding: float | None = None,
        trained_by: str | None = None,
    ) -> None:
        require(">= 1", resolution=resolution)
        require("> 0", guidance_embedding=guidance_embedding)
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype: choose float32, float16 or bfloat16, got {dtype!r}")
        execution = Execution(getattr(torch, dtype), attention, compile, offload, checkpointing, slicing, tiling)
        trained = find_trained(model, "pipeline", "model_index.json")
        if trained is None and trained_by is not None:
            raise ValueError(
                f"there is no trained pipeline in {model}: train it: scoredistill fit --config {trained_by}"
            )
        source = Source(model if trained is None else str(trained), revision, variant)
        parts = take_apart(source, execution, guidance_embedding)
        super().__init__(parts.schedule)
        self.source = source
        self.denoiser = parts.denoiser
        self.codec = parts.codec
        self._zeros = parts.zeros
        self.size = parts.side if resolution is None else (resolution, resolution)
        if resolution is not None and resolution % self.codec.pixels:
            raise ValueError(f"resolution must be a multiple of {self.codec.pixels}, got {resolution}")
        self.prompts = PromptEmbedder(parts.encoder, prompts)
        self.eval()

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Prediction:
        return self.predict_many(x_t, times_of(t, x_t).to(x_t.device), [condition])[0]

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        n = len(conditions)
        condition = cat_common([self._complete(each, x_t) for each in conditions], len(x_t))
        prediction = self.denoiser(x_t.repeat(n, 1, 1, 1), t.repeat(n), condition, self.schedule)
        kind = self.denoiser.prediction
        values = prediction.value.chunk(n)
        return [Prediction.of(kind, value, x_t, t, self.schedule) for value in values]  # type: ignore[arg-type]

    def encode(self, x: Tensor) -> Tensor:
        channels = self.codec.channels
        if x.ndim != 4 or x.shape[1] not in (3, channels):
            raise ValueError(
                f"the teacher encodes pictures (B, 3, H, W) or latents of {channels} channels, got {tuple(x.shape)}"
            )
        if x.shape[1] != 3:
            return x
        if x.shape[-2:] != self.size:
            x = interpolate(x, self.size, mode="bilinear", antialias=True)
        return self.codec.encode(x)

    def decode(self, x: Tensor) -> Tensor:
        return x if x.shape[1] == 3 else self.codec.decode(x)

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        rows = rows if condition is None or condition.rows is None else condition.rows
        if rows is None:
            return condition
        if condition is None or (condition.prompt is None and condition.embeddings is None):
            return replace(condition or Condition(), embeddings=self._unconditional(rows))
        return self.prompts.encode_prompt(condition, rows, self._device)

    def denoiser_for(self, user: str) -> Denoiser:
        return self.denoiser

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _complete(self, condition: Condition | None, x_t: Tensor) -> Condition:
        """The camera, and embeddings of B rows. A prompt without embeddings is encoded literally, without views."""
        if condition is None or (condition.prompt is None and condition.embeddings is None):
            return Condition(
                camera=None if condition is None else condition.camera, embeddings=self._unconditional(len(x_t))
            )
        condition = self.prompts.literal(condition, len(x_t), x_t.device).to(x_t.device)
        assert condition.embeddings is not None
        rows = [len(part) for part in (condition.embeddings, condition.camera) if part is not None]
        if any(n != len(x_t) for n in rows):
            raise ValueError(f"the condition has {' and '.join(map(str, rows))} rows for {len(x_t)} samples")
        return Condition(camera=condition.camera, embeddings=TextEmbeddings.of(condition.embeddings))

    def _unconditional(self, rows: int) -> TextEmbeddings:
        """Embeddings of the empty text, or the zeros that replace them in SDXL, B rows."""
        empty = self.prompts.texts([""], self._device)
        if self._zeros:
            pooled = None if empty.pooled is None else torch.zeros_like(empty.pooled)
            empty = TextEmbeddings(torch.zeros_like(empty.tokens), pooled)
        return expanded(empty, rows)
