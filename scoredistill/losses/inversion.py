"""Losses whose noise is not drawn but found by the teacher: DDIM inversion, and the reversal of a flow."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import Guidance, predict_distinct
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import FlowWeight, TimeWeight, X0Weight
from scoredistill.losses.distillation import GradientNormalizer, ScoreDistillation
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, right_pad_dims

START = 0.001
"""Time at which an inversion starts, one step of a teacher with 1,000: x0 teachers have no epsilon at t = 0."""


def inversion_times(t: Tensor, step: float) -> list[Tensor]:
    """Times (B,) from `START` to t in steps of `step`, the last one shorter; samples that have arrived wait."""
    count = math.ceil(max(float(t.max()) - START, 0.0) / step)
    return [t.clamp(max=START + k * step) for k in range(count)] + [t]


class ISM(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(x_s)),    s = t - interval

    x_s comes from x by DDIM inversion without condition, x_t from x_s by one further step of it, so that both
    predictions belong to one trajectory of the teacher. The last call of the inversion is B.

    "LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching" (2023), arXiv:2311.11284.

    Args:
        interval: t - s, in (0, 1).
        step: step of the inversion from x to x_s, in (0, 1]; the number of further calls is s / step, rounded up.
        weight: w(t); None: `X0Weight`, the published code's.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        interval: float = 0.05,
        step: float = 0.2,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("(0, 1)", interval=interval)
        require("(0, 1]", step=step)
        super().__init__(weight or X0Weight(), normalizer)
        self.interval, self.step = interval, step

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        """x_t of the inversion, with epsilon_teacher(x_s) as its noise."""
        condition = unconditional(diffused.condition)
        times = inversion_times((diffused.t - self.interval).clamp(min=START), self.step)
        x_s = diffused.at(times[0]).x_t
        for before, after in zip(times, [*times[1:], diffused.t], strict=True):
            (prediction,) = teacher.predict_many(x_s, before, [condition])
            x_s = prediction.ddim(after)
        return replace(diffused, x_t=x_s, epsilon=prediction.epsilon)

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.epsilon


class SDI(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - kappa),    x_t = alpha_t x + sigma_t kappa

    `SDS` with the noise kappa that DDIM inversion of x under y finds, guided by a negative scale, so that a step of the
    gradient is one of the teacher's own sampler. Published with t falling from .98 to .02 in training; the published
    code also adds noise in each step of the inversion.

    "Score Distillation via Reparametrized DDIM" (2024), arXiv:2405.15891.

    Args:
        scale: guidance scale of the inversion, finite.
        steps: steps of an inversion to t = 1, >= 0; a time t takes 1 in `steps` of them, rounded up. 0: the noise is
            drawn, as in SDS.
        weight: w(t); None: `X0Weight`, the published code's.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        scale: float = -7.5,
        steps: int = 10,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("finite", scale=scale)
        require(">= 0", steps=steps)
        super().__init__(weight or X0Weight(), normalizer)
        self.scale, self.steps = scale, steps

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        if self.steps == 0:
            return diffused
        times = inversion_times(diffused.t, 1 / self.steps)
        x_t = diffused.at(times[0]).x_t
        for before, after in pairwise(times):
            x_t = self._guided(teacher, x_t, before, diffused.condition).ddim(after)
        alpha, sigma = (right_pad_dims(each, x_t) for each in (diffused.alpha, diffused.sigma))
        kappa = (x_t - alpha * diffused.sample.x.detach()) / sigma
        found = right_pad_dims(diffused.t > START, kappa)
        return diffused.at(diffused.t, torch.where(found, kappa, diffused.epsilon).to(diffused.epsilon))

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.epsilon

    def _guided(self, teacher: Teacher, x_t: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        """uncond + s (cond - uncond), with any s."""
        if condition is None:
            return teacher.predict_many(x_t, t, [None])[0]
        cond, uncond = predict_distinct(teacher, x_t, t, [condition, condition.negative()])
        return cond.with_epsilon(uncond.epsilon + self.scale * (cond.epsilon - uncond.epsilon))


class RFDS(ScoreDistillation):
    """g = v_teacher(x_t; y) - (epsilon - x) = w(t) (epsilon_teacher(x_t; y) - epsilon)

    `SDS` of a rectified flow, with `FlowWeight`.

    "Text-to-Image Rectified Flow as Plug-and-Play Priors" (2024), arXiv:2406.03293.

    Args:
        weight: w(t); None: `FlowWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None) -> None:
        super().__init__(weight or FlowWeight(), normalizer)

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.epsilon


class RFDSRev(RFDS):
    """`RFDS` after the noise has been optimized for x: epsilon' = epsilon_teacher(x_t; y), without guidance,

        g = w(t) (epsilon_teacher(x_t'; y) - epsilon'),    x_t' = alpha_t x + sigma_t epsilon'

    The paper's step on the noise, epsilon + (1 - t) (v_teacher(x_t; y) - (epsilon - x)), is epsilon' exactly.

    "Text-to-Image Rectified Flow as Plug-and-Play Priors" (2024), arXiv:2406.03293.

    Args:
        steps: steps on the noise, each one call of the teacher, >= 0; 0: `RFDS`.
        weight: w(t); None: `FlowWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, steps: int = 1, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        require(">= 0", steps=steps)
        super().__init__(weight, normalizer)
        self.steps = steps

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        for _ in range(self.steps):
            (found,) = teacher.predict_many(diffused.x_t, diffused.t, [diffused.condition])
            diffused = diffused.at(diffused.t, found.epsilon)
        return diffused


def unconditional(condition: Condition | None) -> Condition | None:
    """The condition's camera and background, without prompt and label; None stays None."""
    return None if condition is None else replace(condition, negative_prompt=None).negative()
