"""Training of a text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from scoredistill.diffusion.guidance import CFG
from scoredistill.diffusion.timesteps import TimestepSampler, UniformTimesteps
from scoredistill.generators.one_step import SampledTeacher
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.storage import find_trained, require_finite_weights
from scoredistill.ranges import require
from scoredistill.teachers.latent_diffusion import LatentDiffusionTeacher
from scoredistill.training.denoising import ScoreMatchingTraining
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.types import Batch, Condition, Sample


class TextToImageTraining(ScoreMatchingTraining):
    """Trains a latent text-to-image model, UNet and text encoder together, on pictures with captions:

        min E ||UNet(x_t, t, CLIP(caption)) - y||^2,    x = encoder(picture)

    y is the UNet's prediction type. Some captions are replaced by an empty one, for classifier-free guidance. When
    training ends, the averaged weights are written into the run folder's `pipeline/`, an ordinary Stable Diffusion
    pipeline.

    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.
    "Classifier-Free Diffusion Guidance" (2022), arXiv:2207.12598.

    Args:
        autoencoder: folder of an AutoencoderKL, or the output folder of the recipe that trains one, whose newest
            finished run is used.
        unet: settings of a UNet2DConditionModel, under diffusers' names.
        text_encoder: settings of a CLIPTextModel, under transformers' names.
        words: texts whose words become one token each.
        trained_by: the recipe that trains the autoencoder; `scoredistill fit` runs it first if there is none yet.
        prediction: what the UNet outputs, epsilon or v.
        text_dropout: probability of an empty caption, in [0, 1].
        timesteps: distribution of the noise time; None: uniform over all times.
        optimizer: how the networks are optimized; None: Adam at its default rate.
        ema: decay of the exponential moving average, which becomes the pipeline, in [0, 1).
        guidance: guidance scale of evaluation samples, >= 0.
        steps: noise levels of Heun's method for evaluation samples, >= 1.
        seed: seed of all random numbers in training, in [0, 2^32).

    Raises:
        ValueError: if there is no autoencoder, or text_dropout is out of its range.
    """

    frozen = "network.codec"
    title = "text-to-image model"
    network: LatentDiffusionTeacher

    def __init__(
        self,
        autoencoder: str,
        unet: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        words: Sequence[str],
        trained_by: str | None = None,
        prediction: Literal["epsilon", "v"] = "epsilon",
        text_dropout: float = 0.1,
        timesteps: TimestepSampler | None = None,
        optimizer: NetworkOptimizer | None = None,
        ema: float = 0.999,
        guidance: float = 3.0,
        steps: int = 18,
        seed: int = 0,
    ) -> None:
        require("[0, 1]", text_dropout=text_dropout)
        require("[0, 1)", ema=ema)
        require(">= 0", guidance=guidance)
        require(">= 1", steps=steps)
        require("[0, 2^32)", seed=seed)
        folder = find_trained(autoencoder, "autoencoder", "config.json")
        if folder is None:
            remedy = f"train it: scoredistill fit --config {trained_by}" if trained_by else "train one first"
            raise ValueError(f"there is no trained autoencoder in {autoencoder}: {remedy}")
        model = LatentDiffusionTeacher(_read_autoencoder(folder), unet, text_encoder, words, prediction)
        model.denoiser.requires_grad_(True)
        timesteps = timesteps or UniformTimesteps(0.001, 1.0)
        super().__init__(model, model.schedule, timesteps, optimizer, ema, steps, seed)
        self.text_dropout = text_dropout
        self.guidance = guidance

    @property
    def denoiser(self) -> Denoiser:
        return self.network.denoiser

    @property
    def trained(self) -> LatentDiffusionTeacher:
        """The moving average, which becomes the pipeline."""
        return cast(LatentDiffusionTeacher, super().trained)

    @property
    def eval_generator(self) -> SampledTeacher:
        return SampledTeacher(self.trained, self.trained.shape, self.steps, CFG(self.guidance))

    def with_embeddings(self, batch: Batch) -> Batch:
        return replace(batch, condition=self.trained.encode_prompt(batch.condition, batch.count))

    def sample(self, batch: Batch, rng: torch.Generator) -> Sample:
        prompt = None if batch.condition is None else batch.condition.prompt
        if batch.data is None or prompt is None or isinstance(prompt, str):
            raise ValueError(
                "a text-to-image model is trained on pictures with captions: use Images with condition_on: text"
            )
        kept = torch.rand(len(prompt), generator=rng) >= self.text_dropout
        texts = [text if keep else "" for text, keep in zip(prompt, kept.tolist(), strict=True)]
        with torch.no_grad():
            x = self.network.encode(batch.data)
        return Sample(x, Condition(embeddings=self.network.encode_texts(texts)))

    def on_fit_end(self) -> None:
        """Write the pipeline from the first process."""
        if self.trainer.is_global_zero:
            self.trained.save(Path(self.trainer.default_root_dir) / "pipeline")


def _read_autoencoder(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    kind: Any = AutoencoderKL
    network = kind.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.get_default_dtype())
    require_finite_weights(network, folder)
    return network
