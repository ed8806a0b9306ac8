"""Generators from noise: a denoiser evaluated once or a few times, and a teacher's sampler."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.schedule import Schedule, require_signal
from scoredistill.generators.generator import Generator
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.lora import LoRA, add_lora, sharing_copy
from scoredistill.ranges import require
from scoredistill.teachers.sampling import Churn, sample
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Sample, right_pad_dims
from scoredistill.types.checks import times_of


class OneStepUNet(Generator):
    """A denoiser's clean prediction from pure noise:

        x = x0(sigma_1 z, t_1),    z ~ N(0, I)

    With several times, each step diffuses the last sample again:

        x_k = x0(alpha_k x_{k-1} + sigma_k z_k, t_k),    t_1 > t_2 > ...

    In training, a step k is drawn for each batch and x_k is the sample. Its input comes from the student's previous
    steps, without gradient (backward simulation). In evaluation, all steps are taken.

    "Improved Distribution Matching Distillation for Fast Image Synthesis" (2024), arXiv:2405.14867.

    Args:
        shape: *D, the shape of one sample, >= 1.
        network: the backbone; None: a copy of the teacher's network, with the teacher's parameterization.
        prediction: edm, or what the backbone outputs.
        sigma_data: the data's standard deviation, for edm only, > 0.
        times: decreasing times t_1 > t_2 > ... of the steps, in (0, 1].
        lora: train adapters over the teacher's frozen weights, which are shared with the teacher; None: train a copy.
        population: number of additional samples that represent the distribution q for a `ParticleCritic`, >= 0; 0:
            none.
        schedule: noise schedule; None: the teacher's.

    Raises:
        ValueError: if the times do not decrease or leave (0, 1], or both `lora` and `network` are set; in a
            `Distiller`, if the network predicts epsilon or the score at a time without signal, where x0 is undefined.
    """

    def __init__(
        self,
        shape: Sequence[int],
        network: Backbone | None = None,
        prediction: Parameterization = "edm",
        sigma_data: float = 0.5,
        times: Sequence[float] = (1.0,),
        lora: LoRA | None = None,
        population: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        require(">= 1", shape=shape)
        require("> 0", sigma_data=sigma_data)
        require("(0, 1]", times=times)
        require(">= 0", population=population)
        super().__init__()
        if not times or any(a <= b for a, b in pairwise(times)):
            raise ValueError(f"times must decrease within (0, 1], got {list(times)}")
        if lora is not None and network is not None:
            raise ValueError("lora adapts the teacher's network: leave network out")
        self.shape = tuple(shape)
        self.times = tuple(times)
        self.lora = lora
        self.population_size = population
        self.schedule = schedule
        self.denoiser = None if network is None else Denoiser(network, prediction, sigma_data)

    def bind(self, teacher: Teacher) -> None:
        self.schedule = self.schedule or teacher.schedule
        if self.denoiser is None:
            self.denoiser = self._initialized(teacher.denoiser_for("the student"))
        if self.denoiser.prediction in ("epsilon", "score"):
            first = torch.tensor(self.times[:1], dtype=torch.float64)
            what = f"OneStepUNet: x0 of a network that predicts {self.denoiser.prediction}"
            require_signal(first, self.schedule, what, "choose times below 1, or let it predict edm, v, x0 or flow")

    def _initialized(self, network: Denoiser) -> Denoiser:
        """The initial network: a copy of the teacher's, or adapters over its weights."""
        if self.lora is None:
            return deepcopy(network).requires_grad_(True).train(self.training)
        shared = sharing_copy(network).train(self.training)
        add_lora(shared, self.lora)
        return shared

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        last = len(self.times)
        if self.training and last > 1:
            last = 1 + int(torch.randint(last, (), generator=rng))
        x, noise = self._steps(batch, last, rng)
        if not (self.population_size and self.training):
            return Sample(x, batch.condition, noise=noise)
        with torch.no_grad():
            others = self._population_batch(batch)
            population, _ = self._steps(others, last, rng)
        views = None if others.condition is None else others.condition.views
        return Sample(x, batch.condition, population=population, population_view_index=views, noise=noise)

    def _population_batch(self, batch: Batch) -> Batch:
        """The batch of the population's samples; a micro-batch generates its share of them."""
        first, total = batch.part or (0, batch.rows)
        start = first * self.population_size // total
        end = (first + batch.rows) * self.population_size // total
        index = torch.arange(end - start) % batch.rows
        condition = None if batch.condition is None else batch.condition[index]
        return Batch(condition, end - start, part=(start, self.population_size))

    def _steps(self, batch: Batch, last: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """x_last, with a graph of the last step only, and the noise z_1."""
        if self.denoiser is None or self.schedule is None:
            raise ValueError("OneStepUNet has no network yet: pass network= and schedule=, or use it in a Distiller")
        x = torch.zeros(batch.rows, *self.shape).to(next(self.denoiser.parameters()))
        noise = []
        for k, time in enumerate(self.times[:last]):
            t = times_of(time, x).to(x.device)
            alpha, sigma = (right_pad_dims(each, x) for each in self.schedule(t))
            noise.append(batch.noise(self.shape, rng, x.device).to(x))
            x_t = sigma * noise[k] + (0 if k == 0 else alpha * x)
            with torch.set_grad_enabled(torch.is_grad_enabled() and k == last - 1):
                x = self.denoiser(x_t.to(x.dtype), t, batch.condition, self.schedule).x0.to(x.dtype)
        return x, noise[0]


class SampledTeacher(Generator):
    """x from the probability flow of a teacher, the reference for a one-step student. It has no gradient.

    Latents are decoded to pictures.

    Args:
        teacher: the model of p.
        shape: *D, the shape of one sample, >= 1.
        steps: noise levels of Heun's method, >= 1.
        guidance: guidance of the teacher; None: the conditional model without guidance.
        churn: noise added in every step; None: deterministic.
    """

    def __init__(
        self,
        teacher: Teacher,
        shape: Sequence[int],
        steps: int = 18,
        guidance: Guidance | None = None,
        churn: Churn | None = None,
    ) -> None:
        require(">= 1", shape=shape, steps=steps)
        super().__init__()
        self.teacher = teacher
        self.shape = tuple(shape)
        self.steps = steps
        self.guidance = guidance
        self.churn = churn

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        settings = {"steps": self.steps, "guidance": self.guidance, "churn": self.churn}
        x = sample(self.teacher, batch.rows, self.shape, batch.condition, rng=rng, **settings)  # type: ignore[arg-type]
        with torch.no_grad():
            return Sample(self.teacher.decode(x), batch.condition)
