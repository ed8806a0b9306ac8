"""Training by denoising score matching, and the training of a teacher by it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import noise_like
from scoredistill.diffusion.schedule import EDMSchedule, Schedule
from scoredistill.diffusion.timesteps import LogNormalTimesteps, TimeBins, TimestepSampler
from scoredistill.generators.one_step import SampledTeacher
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.storage import save_denoiser
from scoredistill.ranges import require
from scoredistill.teachers.network import NetworkTeacher
from scoredistill.training.average import averages_of
from scoredistill.training.distillation import LEVELS
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition, Diffused, Sample
from scoredistill.types.checks import time_type


class ScoreMatchingTraining(TrainingModule):
    """Trains a network by denoising score matching:

        min E ||F(x_t, t, c) - F*||^2    in the units of the network, see `Denoiser`

    A subclass implements `denoiser`, `sample` and `eval_generator`. The error, its report by noise level, the optimizer
    step and the moving average are shared.

    Args:
        network: the module that is trained and averaged.
        schedule: noise schedule.
        timesteps: distribution of the noise time.
        optimizer: how the network is optimized; None: Adam at its default rate.
        ema: decay of the exponential moving average, in [0, 1); None: no average.
        steps: noise levels of Heun's method for evaluation samples, >= 1.
        seed: seed of all random numbers in training, in [0, 2^32).
    """

    title = "network"
    """Name of the network in error messages."""

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        timesteps: TimestepSampler,
        optimizer: NetworkOptimizer | None,
        ema: float | None,
        steps: int,
        seed: int,
    ) -> None:
        require(">= 1", steps=steps)
        require("[0, 1)", ema=ema)
        super().__init__(seed)
        self.network = network
        self.schedule = schedule
        self.timesteps = timesteps
        self.optimizer = optimizer or NetworkOptimizer()
        self.steps = steps
        self.averages = averages_of(network, ema)
        self.levels = TimeBins.quantiles(timesteps, schedule, LEVELS)

    @property
    @abstractmethod
    def denoiser(self) -> Denoiser:
        """The trained denoiser, the network itself or a part of it."""

    @abstractmethod
    def sample(self, batch: Batch, rng: torch.Generator) -> Sample:
        """The clean samples of a batch, with the condition that the denoiser receives.

        Args:
            batch: with real samples.
            rng: CPU generator of the tick.

        Raises:
            ValueError: if the batch lacks what the network is trained on.
        """

    @property
    def trained(self) -> nn.Module:
        """The network that is evaluated and written: the moving average if there is one."""
        return self.network if self.average is None else self.average.module

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer."""
        return [self.optimizer.build(self.network)]

    def error(self, batch: Batch, rng: torch.Generator, progress: float = 0.0) -> tuple[Tensor, Tensor]:
        """Squared error of each sample in the units of the network, and its noise time, each (B,).

        Args:
            batch: with real samples.
            rng: CPU generator of times and noise.
            progress: fraction of training done, for annealed timesteps.

        Raises:
            ValueError: if the batch lacks what the network is trained on.
        """
        sample = self.sample(batch, rng)
        t = self.timesteps(len(sample.x), self.schedule, progress, rng).to(time_type(sample.x))
        diffused = Diffused.diffuse(sample, t, noise_like(sample.x, rng), self.schedule)
        return self.denoiser.training_error(diffused), diffused.t

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of denoising score matching."""
        error, t = self.error(batch, self.rng_of_tick(), self.progress)
        norm = self.backward_and_step(self.optimizer, error.mean(), self.title)
        if self.average is not None:
            self.average.update(self.network)
        if self.logs_this_tick():
            means = self.levels.means(error.detach(), t, self.schedule)
            self.log_dict({f"loss/level_{level}": mean for level, mean in means.items()})
            self.log_dict({"loss": error.detach().mean(), "gradient_norm": norm}, prog_bar=True)
        self.ticks += 1


class DenoiserTraining(ScoreMatchingTraining):
    """Trains a teacher by denoising score matching on data:

        min E ||F(x_t, t, label) - F*||^2    in the units of the network, see `Denoiser`

    When training ends, the averaged network is written into the run folder's `teacher/`, which `NetworkTeacher` reads.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        network: the backbone.
        shape: of one sample, >= 1.
        prediction: edm, or the prediction type that the backbone outputs.
        sigma_data: standard deviation of the data, for edm only, > 0.
        schedule: noise schedule; None: EDM's.
        timesteps: distribution of the noise time; None: EDM's log-normal distribution.
        optimizer: how the network is optimized; None: Adam at its default rate.
        ema: decay of the exponential moving average, which becomes the teacher, in [0, 1); None: no average.
        steps: noise levels of Heun's method when the teacher is sampled for evaluation, >= 1.
        seed: seed of all random numbers in training, in [0, 2^32).
    """

    def __init__(
        self,
        network: Backbone,
        shape: Sequence[int],
        prediction: Parameterization = "edm",
        sigma_data: float = 0.5,
        schedule: Schedule | None = None,
        timesteps: TimestepSampler | None = None,
        optimizer: NetworkOptimizer | None = None,
        ema: float | None = 0.999,
        steps: int = 18,
        seed: int = 0,
    ) -> None:
        require(">= 1", shape=shape)
        require("> 0", sigma_data=sigma_data)
        denoiser = Denoiser(network, prediction, sigma_data)
        schedule, timesteps = schedule or EDMSchedule(), timesteps or LogNormalTimesteps()
        super().__init__(denoiser, schedule, timesteps, optimizer, ema, steps, seed)
        self.shape = tuple(shape)

    @property
    def denoiser(self) -> Denoiser:
        return cast(Denoiser, self.network)

    @property
    def trained(self) -> Denoiser:
        """The network that becomes the teacher: the moving average if there is one."""
        return cast(Denoiser, super().trained)

    @property
    def eval_generator(self) -> SampledTeacher:
        denoiser = self.trained
        teacher = NetworkTeacher(denoiser.network, None, None, denoiser.prediction, denoiser.sigma_data, self.schedule)
        return SampledTeacher(teacher, self.shape, self.steps)

    def sample(self, batch: Batch, rng: torch.Generator) -> Sample:
        if batch.data is None:
            raise ValueError("a teacher is trained on data: use a data module with real samples, such as Images")
        label = batch.data_label
        return Sample(batch.data, None if label is None else Condition(label=label))

    def on_fit_end(self) -> None:
        """Write the teacher from the first process."""
        if self.trainer.is_global_zero:
            save_denoiser(self.trained, Path(self.trainer.default_root_dir) / "teacher")
