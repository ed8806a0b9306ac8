"""Training of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from scoredistill.diffusion.prediction import noise_like
from scoredistill.diffusion.schedule import EDMSchedule, Schedule
from scoredistill.diffusion.timesteps import LogNormalTimesteps, TimeBins, TimestepSampler
from scoredistill.generators.sampler import SampledTeacher
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.storage import save_denoiser
from scoredistill.ranges import require
from scoredistill.teachers.network import NetworkTeacher
from scoredistill.training.average import MovingAverage
from scoredistill.training.module import LEVELS
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition, Diffused, Sample
from scoredistill.types.checks import time_type


class DenoiserTraining(TrainingModule):
    """Trains a teacher by denoising score matching on data:

        min E ||F(x_t, t, label) - F*||^2    in the units of the network, see `Denoiser`

    At its end the averaged network is written into the run folder's `teacher/`, which `NetworkTeacher` reads.

    Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.

    Args:
        network: the backbone.
        shape: of one sample, >= 1.
        prediction: edm, or what the backbone outputs.
        sigma_data: the data's standard deviation, for edm only, > 0.
        schedule: noise schedule; null: EDM's.
        timesteps: distribution of the noise time; null: EDM's log-normal one.
        optimizer: how the network is optimized; null: Adam at its default rate.
        ema: decay of the exponential moving average, which is the teacher, in [0, 1); null: none.
        steps: noise levels of Heun's method where the teacher is sampled for evaluation, >= 1.
        seed: of all randomness in training, in [0, 2^32).
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
        require(">= 1", shape=shape, steps=steps)
        require("> 0", sigma_data=sigma_data)
        require("[0, 1)", ema=ema)
        require("[0, 2^32)", seed=seed)
        super().__init__(seed)
        self.denoiser = Denoiser(network, prediction, sigma_data)
        self.schedule, self.timesteps = schedule or EDMSchedule(), timesteps or LogNormalTimesteps()
        self.optimizer, self.shape, self.steps = optimizer or NetworkOptimizer(), tuple(shape), steps
        self.average = None if ema is None else MovingAverage(self.denoiser, ema)
        self.levels = TimeBins.quantiles(self.timesteps, self.schedule, LEVELS)

    @property
    def trained(self) -> Denoiser:
        """The network that becomes the teacher: the moving average where there is one."""
        return self.denoiser if self.average is None else cast(Denoiser, self.average.module)

    @property
    def eval_generator(self) -> SampledTeacher:
        denoiser = self.trained
        teacher = NetworkTeacher(denoiser.network, None, None, denoiser.prediction, denoiser.sigma_data, self.schedule)
        return SampledTeacher(teacher, self.shape, self.steps)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer."""
        return [self.optimizer.build(self.denoiser)]

    def on_fit_end(self) -> None:
        """Write the teacher, by the first process."""
        if self.trainer.is_global_zero:
            save_denoiser(self.trained, Path(self.trainer.default_root_dir) / "teacher")

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of denoising score matching."""
        if batch.data is None:
            raise ValueError("a teacher is trained on data: use a data module that has them, Images for example")
        rng = self.rng_of_tick()
        label = batch.data_label
        sample = Sample(batch.data, None if label is None else Condition(label=label))
        t = self.timesteps(len(sample.x), self.schedule, self.progress, rng).to(time_type(sample.x))
        diffused = Diffused.diffuse(sample, t, noise_like(sample.x, rng), self.schedule)
        error = self.denoiser.training_error(diffused)
        norm = self.backward_and_step(self.optimizer, error.mean(), "network")
        if self.average is not None:
            self.average.update(self.denoiser)
        if self.reports():
            means = self.levels.means(error.detach(), diffused.t, self.schedule)
            self.log_dict({f"loss/level_{level}": mean for level, mean in means.items()})
            self.log_dict({"loss": error.detach().mean(), "gradient_norm": norm}, prog_bar=True)
        self.ticks += 1
