"""Generators from noise: a denoiser evaluated once or a few times, and a teacher's sampler."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule, require_signal
from scoredistill.generators.generator import Generator
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.lora import LoRA, add_lora, sharing_copy
from scoredistill.ranges import require
from scoredistill.teachers.sampling import Churn, sample
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Sample, Segment, right_pad_dims
from scoredistill.types.checks import require_shape, times_of

Inputs = Literal["simulation", "data", "mixed"]
Sampling = Literal["consistency", "ode"]


class OneStepUNet(Generator):
    """A denoiser's clean prediction from pure noise:

        x = x0(sigma_1 z, t_1),    z ~ N(0, I)

    With several times t_1 > t_2 > ..., x_k = x0(x_t, t_k) at an input made of the last sample,

        consistency   x_t = alpha_k x_{k-1} + sigma_k z_k                  the sample diffused again, DMD2's sampler
        ode           x_t = alpha_k x_{k-1} + sigma_k epsilon_{k-1}        the deterministic DDIM step, as in TDM

    with epsilon_{k-1} the noise that x_{k-1} leaves in the last input. In training, a step k is drawn for each batch
    and x_k is the sample. Its input comes, without gradient, from

        simulation    the student's own previous steps (backward simulation)
        data          real samples, x_t = alpha_k data + sigma_k z, which the batch's condition should describe
        mixed         one or the other, with the same probability

    The first input is always pure noise. In evaluation, all steps are taken. `Sample.segment` tells a loss which step
    made the sample.

    "Improved Distribution Matching Distillation for Fast Image Synthesis" (2024), arXiv:2405.14867.
    "Learning Few-Step Diffusion Models by Trajectory Distribution Matching" (2025), arXiv:2503.06674.

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
        inputs: of the later steps in training: simulation, data or mixed.
        sampling: consistency or ode.

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
        inputs: Inputs = "simulation",
        sampling: Sampling = "consistency",
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
        self.inputs: Inputs = inputs
        self.sampling: Sampling = sampling
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
        real = self.training and last > 1 and self._takes_data(rng)
        x, noise, segment = self._step_on_data(batch, last, rng) if real else self._steps(batch, last, rng)
        paired = not real and (last == 1 or self.sampling == "ode")
        made = Sample(x, batch.condition, noise=noise, target=batch.target if paired else None, segment=segment)
        if not (self.population_size and self.training):
            return made
        with torch.no_grad():
            others = self._population_batch(batch)
            population = self._steps(others, last, rng)[0]
        views = None if others.condition is None else others.condition.views
        return replace(made, population=population, population_view_index=views)

    def _takes_data(self, rng: torch.Generator | None) -> bool:
        """Whether a later step's input comes from real samples."""
        return self.inputs == "data" or (self.inputs == "mixed" and bool(torch.rand((), generator=rng) < 0.5))

    def _population_batch(self, batch: Batch) -> Batch:
        """The batch of the population's samples; a micro-batch generates its share of them."""
        first, total = batch.part or (0, batch.rows)
        start = first * self.population_size // total
        end = (first + batch.rows) * self.population_size // total
        index = torch.arange(end - start) % batch.rows
        condition = None if batch.condition is None else batch.condition[index]
        return Batch(condition, end - start, part=(start, self.population_size))

    def _steps(self, batch: Batch, last: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor, Segment]:
        """x_last, with a graph of the last step only, the noise z_1, and the last step."""
        x, predicted, first = self._zeros(batch), None, None
        for k in range(last):
            if predicted is None or self.sampling == "consistency":
                z = batch.z if k == 0 and batch.z is not None else batch.noise(self.shape, rng, x.device)
                z = require_shape(z.to(x), x.shape, "Batch.z")
                first = z if first is None else first
                x_t = self._noised(None if k == 0 else x, z, k)
            else:
                x_t = predicted.ddim(self._time(k, x)).detach()
            with torch.set_grad_enabled(torch.is_grad_enabled() and k == last - 1):
                x, predicted = self._clean(x_t, k, batch)
        assert first is not None
        return x, first, self._segment(x_t, last - 1)

    def _step_on_data(self, batch: Batch, last: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor, Segment]:
        """The same for one step from the batch's real samples, and its noise."""
        x = self._zeros(batch)
        if batch.data is None or batch.data.shape != x.shape:
            have = "none" if batch.data is None else f"{tuple(batch.data.shape)}"
            raise ValueError(
                f"OneStepUNet.inputs: {self.inputs} needs real samples {tuple(x.shape)}, the batch has {have}"
            )
        z = batch.noise(self.shape, rng, x.device).to(x)
        x_t = self._noised(batch.data.to(x), z, last - 1)
        return self._clean(x_t, last - 1, batch)[0], z, self._segment(x_t, last - 1)

    def _zeros(self, batch: Batch) -> Tensor:
        """(B, *D) of the network's type and device."""
        if self.denoiser is None or self.schedule is None:
            raise ValueError("OneStepUNet has no network yet: pass network= and schedule=, or use it in a Distiller")
        return torch.zeros(batch.rows, *self.shape).to(next(self.denoiser.parameters()))

    def _time(self, k: int, like: Tensor) -> Tensor:
        """(B,) the time of step k, counted from 0; 0 after the last one."""
        return times_of((*self.times, 0.0)[k], like).to(like.device)

    def _noised(self, x: Tensor | None, z: Tensor, k: int) -> Tensor:
        """alpha x + sigma z at step k; None: sigma z."""
        assert self.schedule is not None
        alpha, sigma = (right_pad_dims(each, z) for each in self.schedule(self._time(k, z)))
        return (sigma * z + (0 if x is None else alpha * x)).to(z.dtype)

    def _clean(self, x_t: Tensor, k: int, batch: Batch) -> tuple[Tensor, Prediction]:
        """The clean prediction of step k, and the prediction."""
        assert self.denoiser is not None
        assert self.schedule is not None
        predicted = self.denoiser(x_t, self._time(k, x_t), batch.condition, self.schedule)
        return predicted.x0.to(x_t.dtype), predicted

    def _segment(self, x_t: Tensor, k: int) -> Segment:
        assert self.denoiser is not None
        assert self.schedule is not None
        return Segment(x_t, self._time(k, x_t), self._time(k + 1, x_t), self.denoiser, self.schedule)


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
