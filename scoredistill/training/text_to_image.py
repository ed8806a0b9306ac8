"""Training of a text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import CFG
from scoredistill.diffusion.prediction import noise_like
from scoredistill.diffusion.timesteps import TimeBins, TimestepSampler, UniformTimesteps
from scoredistill.generators.sampler import SampledTeacher
from scoredistill.networks.storage import find_trained, require_finite
from scoredistill.ranges import require
from scoredistill.teachers.latent_diffusion import LatentDiffusionTeacher
from scoredistill.training.average import MovingAverage
from scoredistill.training.module import LEVELS
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition, Diffused, Sample
from scoredistill.types.checks import time_type


class TextToImageTraining(TrainingModule):
    """Trains a latent text-to-image model, UNet and text encoder together, on pictures with captions:

        min E ||UNet(x_t, t, CLIP(caption)) - y||^2,    x = encoder(picture)

    with y the UNet's prediction type, and an empty caption in place of some, for guidance. At its end the average of
    the weights is written into the run folder's `pipeline/`, an ordinary Stable Diffusion pipeline.

    High-Resolution Image Synthesis with Latent Diffusion Models, 2021, arXiv:2112.10752.
    Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598.

    Args:
        autoencoder: folder of an AutoencoderKL, or the output of the recipe that trains it, whose newest finished run
            counts.
        unet: settings of a UNet2DConditionModel, by the names that diffusers has for them.
        text_encoder: settings of a CLIPTextModel, by transformers' names.
        words: texts whose words the tokenizer knows as one token each.
        trained_by: the recipe that trains the autoencoder; `scoredistill fit` runs it first where there is none yet.
        prediction: what the UNet outputs, epsilon or v.
        text_dropout: probability of an empty caption, in [0, 1].
        timesteps: distribution of the noise time; null: uniform over all times.
        optimizer: how the networks are optimized; null: Adam at its default rate.
        ema: decay of the exponential moving average, which becomes the pipeline, in [0, 1).
        guidance: scale under which it is sampled for evaluation, >= 0.
        steps: noise levels of Heun's method then, >= 1.
        seed: of all randomness in training, in [0, 2^32).

    Raises:
        ValueError: if there is no autoencoder, or text_dropout is out of its range.
    """

    frozen = "model.codec"

    average: MovingAverage

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
        super().__init__(seed)
        found = find_trained(autoencoder, "autoencoder", "config.json")
        if found is None:
            remedy = f"train it: scoredistill fit --config {trained_by}" if trained_by else "train one first"
            raise ValueError(f"there is no trained autoencoder in {autoencoder}: {remedy}")
        self.model = LatentDiffusionTeacher(_read_autoencoder(found), unet, text_encoder, words, prediction)
        self.model.denoiser.requires_grad_(True)
        self.text_dropout, self.timesteps = text_dropout, timesteps or UniformTimesteps(0.001, 1.0)
        self.optimizer, self.guidance, self.steps = optimizer or NetworkOptimizer(), guidance, steps
        self.average = MovingAverage(self.model, ema)
        self.levels = TimeBins.quantiles(self.timesteps, self.model.schedule, LEVELS)

    @property
    def trained(self) -> LatentDiffusionTeacher:
        """The moving average, which becomes the pipeline."""
        return cast(LatentDiffusionTeacher, self.average.module)

    @property
    def eval_generator(self) -> SampledTeacher:
        return SampledTeacher(self.trained, self.trained.shape, self.steps, CFG(self.guidance))

    def with_embeddings(self, batch: Batch) -> Batch:
        return replace(batch, condition=self.trained.encode_prompt(batch.condition, batch.count))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer."""
        return [self.optimizer.build(self.model)]

    def on_fit_end(self) -> None:
        """Write the pipeline, by the first process."""
        if self.trainer.is_global_zero:
            self.trained.save(Path(self.trainer.default_root_dir) / "pipeline")

    def error(self, batch: Batch, rng: torch.Generator, progress: float = 0.0) -> tuple[Tensor, Tensor]:
        """Squared error of each sample in the units of the UNet, and its time, each (B,).

        Args:
            batch: (B, 3, H, W) pictures in [-1, 1] or their latents, and a caption of each.
            rng: CPU generator of times, noise and of which captions are dropped.
            progress: fraction of training done, for annealed timesteps.

        Raises:
            ValueError: if there are no pictures or no captions.
        """
        prompt = None if batch.condition is None else batch.condition.prompt
        if batch.data is None or prompt is None or isinstance(prompt, str):
            raise ValueError("a text-to-image model is trained on pictures with captions: Images with labels: text")
        kept = torch.rand(len(prompt), generator=rng) >= self.text_dropout
        texts = [text if keep else "" for text, keep in zip(prompt, kept.tolist(), strict=True)]
        with torch.no_grad():
            x = self.model.encode(batch.data)
        t = self.timesteps(len(x), self.model.schedule, progress, rng).to(time_type(x))
        sample = Sample(x, Condition(embeddings=self.model.read(texts)))
        diffused = Diffused.diffuse(sample, t, noise_like(x, rng), self.model.schedule)
        return self.model.denoiser.training_error(diffused), diffused.t

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step on captioned pictures."""
        error, t = self.error(batch, self.rng_of_tick(), self.progress)
        norm = self.backward_and_step(self.optimizer, error.mean(), "text-to-image model")
        self.average.update(self.model)
        if self.reports():
            means = self.levels.means(error.detach(), t, self.model.schedule)
            self.log_dict({f"loss/level_{level}": mean for level, mean in means.items()})
            self.log_dict({"loss": error.detach().mean(), "gradient_norm": norm}, prog_bar=True)
        self.ticks += 1


def _read_autoencoder(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    kind: Any = AutoencoderKL
    network = kind.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.get_default_dtype())
    require_finite(network, folder)
    return network
