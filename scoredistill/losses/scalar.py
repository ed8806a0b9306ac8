"""Objectives defined by a scalar per sample, differentiated through the teacher and the critic."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import TimeWeight, UniformWeight
from scoredistill.losses.distillation import require_finite_gradient
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.networks.modules import eval_mode
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims
from scoredistill.types.checks import require_shape
from scoredistill.types.sample import mixed


class ScalarDistillation(Objective):
    """g = w(t) grad_x l(x, A(x_t), B(x_t)),    x_t = alpha x + sigma epsilon

    A subclass implements `scalar`, which returns l of each sample from x and the two predictions. The gradient flows
    through x, x_t and both networks, except through tensors that `scalar` detaches. It may override `reweight`, for
    scalars that depend on the density ratio.

    Args:
        critic: the model of the generator's score, whose prediction is B.
        weight: w(t); None: `UniformWeight`.
    """

    def __init__(self, critic: Critic, weight: TimeWeight | None = None) -> None:
        super().__init__()
        self.critic = critic
        self.weight = weight or UniformWeight()

    @abstractmethod
    def scalar(self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting) -> Tensor:
        """l of each sample, (B,), differentiable. Called with gradients enabled.

        Args:
            diffused: the diffused samples; `diffused.sample.x` is x, a leaf that requires a gradient.
            target: A, the guided teacher's prediction at x_t.
            baseline: B, the critic's.
            reweighting: the result of `reweight`, without gradient.
        """

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        """h(r) and log r, (B,) each, without gradient; the default is h = 1 without a ratio."""
        del teacher
        return Reweighting(torch.ones_like(diffused.t))

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        with torch.enable_grad(), eval_mode(self.critic):
            x = diffused.sample.x.detach().requires_grad_()
            x_t = mixed(x, diffused.t, diffused.epsilon, diffused.schedule)
            diffused = replace(diffused, x_t=x_t, sample=replace(diffused.sample, x=x))
            target = (guidance or CFG())(teacher, x_t, diffused.t, diffused.condition)
            baseline = self.critic(diffused)
            with torch.no_grad():
                reweighting = self.reweight(diffused.detach(), teacher)
            scalar = self.scalar(diffused, target, baseline, reweighting)
            require_shape(scalar, diffused.t.shape, f"the scalar of {type(self).__name__}")
            (slope,) = torch.autograd.grad(scalar.sum(), x)
        ones = torch.ones_like(diffused.t)
        g = right_pad_dims(self.weight(diffused.t, diffused.schedule), slope) * slope
        if diffused.at_end:
            require_finite_gradient(g, diffused)
        return Gradient(g, diffused.detach(), target.detach(), baseline.epsilon.detach(), reweighting, ones)
