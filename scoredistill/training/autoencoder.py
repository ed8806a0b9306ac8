"""Training of the autoencoder of a latent text-to-image model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from scoredistill.files import atomic_folder
from scoredistill.generators.generator import Generator
from scoredistill.networks.storage import require_finite_weights
from scoredistill.ranges import require
from scoredistill.training.average import MovingAverage, averages_of
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Sample


class AutoencoderTraining(TrainingModule):
    """Trains an AutoencoderKL of diffusers on pictures:

        min E ||x - D(z)||^2 + beta KL(N(mu(x), s(x)^2) || N(0, 1)),    z = mu(x) + s(x) epsilon

    Both terms are means over dimensions. When training ends, the averaged network is written into the run folder's
    `autoencoder/`, with the scaling factor 1 / std(mu) that gives its latents unit variance;
    `AutoencoderKL.from_pretrained` reads it.

    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.

    Args:
        network: settings of an AutoencoderKL of RGB pictures, under diffusers' names.
        kl_weight: weight beta of the KL term, >= 0.
        optimizer: how the network is optimized; None: Adam at its default rate.
        ema: decay of the exponential moving average, which is the network that is written, in [0, 1).
        measured: number of pictures that determine the latents' standard deviation, >= 1.
        seed: seed of all random numbers in training, in [0, 2^32).

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        kl_weight: float = 1e-4,
        optimizer: NetworkOptimizer | None = None,
        ema: float = 0.999,
        measured: int = 512,
        seed: int = 0,
    ) -> None:
        require(">= 0", kl_weight=kl_weight)
        require("[0, 1)", ema=ema)
        require(">= 1", measured=measured)
        require("[0, 2^32)", seed=seed)
        super().__init__(seed)
        from diffusers import AutoencoderKL

        kind: Any = AutoencoderKL
        self.network = kind(**network)
        self.kl_weight = kl_weight
        self.measured = measured
        self.optimizer = optimizer or NetworkOptimizer()
        self.averages = averages_of(self.network, ema)

    @property
    def average(self) -> MovingAverage:
        """The moving average, which is the network that is written."""
        return cast(MovingAverage, super().average)

    @property
    def eval_generator(self) -> Reconstruction:
        return Reconstruction(self.average.module)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer."""
        return [self.optimizer.build(self.network)]

    def terms(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The error of the reconstruction and the KL divergence, each (B,).

        Args:
            x: (B, 3, H, W) pictures in [-1, 1].
            rng: CPU generator of epsilon.
        """
        posterior = self.network.encode(x).latent_dist
        epsilon = torch.randn(posterior.mean.shape, generator=rng).to(x)
        error = self.network.decode(posterior.mean + posterior.std * epsilon).sample - x
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar)
        return error.flatten(1).square().mean(1), divergence.flatten(1).mean(1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step on the batch's real pictures."""
        if batch.data is None:
            raise ValueError("an autoencoder is trained on data: use a data module with real samples, such as Images")
        error, divergence = (term.mean() for term in self.terms(batch.data, self.rng_of_tick()))
        norm = self.backward_and_step(self.optimizer, error + self.kl_weight * divergence, "autoencoder")
        self.average.update(self.network)
        if self.logs_this_tick():
            metrics = {"error": error.detach(), "kl": divergence.detach(), "gradient_norm": norm}
            self.log_dict(metrics, prog_bar=True)
        self.ticks += 1

    def on_fit_end(self) -> None:
        """Measure the latents' scale and write the autoencoder from the first process.

        Raises:
            ValueError: if the latents have no spread.
        """
        if self.trainer.is_global_zero:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            network: Any = self.average.module
            pictures = data.reference()[0][: self.measured].to(self.device)
            folder = Path(self.trainer.default_root_dir) / "autoencoder"
            require_finite_weights(network, folder)
            spread = float(latents_of(network, pictures).std())
            if not 0 < spread < math.inf:
                raise ValueError(f"{folder}: the latents' standard deviation is {spread}, so they have no scale")
            network.register_to_config(scaling_factor=1 / spread)
            with atomic_folder(folder) as draft:
                network.save_pretrained(draft)


class Reconstruction(Generator):
    """Reconstructs the batch's real pictures: x -> D(mu(x)).

    Args:
        network: an AutoencoderKL.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        if batch.data is None:
            raise ValueError(
                "only real pictures can be reconstructed: use a data module with real samples, such as Images"
            )
        with torch.no_grad():
            return Sample(self.network(batch.data).sample, batch.condition)


@torch.no_grad()
def latents_of(network: Any, pictures: Tensor, batch: int = 64) -> Tensor:
    """Means mu(x) of the posterior, unscaled, (B, C, h, w)."""
    return torch.cat([network.encode(part).latent_dist.mean for part in pictures.split(batch)])
