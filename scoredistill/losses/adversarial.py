"""An adversarial term added to any objective."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.losses.distillation import FDistill
from scoredistill.losses.objective import Gradient, Objective
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims


class WithGAN(Objective):
    """g = g_loss + lambda alpha grad l(D(x_t)), with l the generator's adversarial loss, at the same x_t and t.

    With `balance`, lambda is chosen in each step so that the norm of the term over the batch is that fraction of the
    objective's norm. D is evaluated once per generator step, also if it is the objective's ratio.

    "Improved Distribution Matching Distillation for Fast Image Synthesis" (2024), arXiv:2405.14867.

    Args:
        loss: the objective that the term is added to.
        discriminator: D; None: the learned ratio of the loss.
        gan_weight: lambda, >= 0; with 0 the discriminator is trained and affects the generator only through r.
        balance: fraction of the objective's gradient norm, > 0, which replaces lambda; None: lambda is constant.

    Raises:
        ValueError: if there is no discriminator.
    """

    def __init__(
        self,
        loss: Objective,
        discriminator: DiscriminatorRatio | None = None,
        gan_weight: float = 1e-3,
        balance: float | None = None,
    ) -> None:
        require(">= 0", gan_weight=gan_weight)
        require("> 0", balance=balance)
        super().__init__()
        found = discriminator or (loss.ratio if isinstance(loss, FDistill) else None)
        if not isinstance(found, DiscriminatorRatio):
            raise ValueError("WithGAN needs a discriminator: give one, or a loss whose ratio is a DiscriminatorRatio")
        self.loss = loss
        self.discriminator = found
        self.gan_weight = gan_weight
        self.balance = balance

    @property
    def critic(self) -> Critic | None:
        """The loss's critic, or None."""
        return getattr(self.loss, "critic", None)

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        self.loss.bind(teacher, timesteps)
        self.discriminator.bind(teacher, self.critic)

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        logit, term = self._term(diffused, teacher)
        with self.discriminator.with_logit(diffused, logit):
            objective = self.loss.gradient(diffused, teacher, guidance)
        norms = [each.flatten(1).norm(dim=1).mean() for each in (objective.g, term)]
        weight = self._weight(objective.g, term, diffused)
        metrics = {"gan/distillation_norm": norms[0], "gan/norm": norms[1], "gan/weight": weight}
        return replace(objective, g=objective.g + weight * term, metrics={**objective.metrics, **metrics})

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        self.loss.observe(diffused, gradient)

    def _term(self, diffused: Diffused, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """D(x_t), (B,), and alpha grad l(D(x_t)), (B, *D): the gradient in x of each sample's loss."""
        quiet = [module for module in (self.discriminator, self.critic) if module is not None]
        with torch.enable_grad(), eval_mode(*quiet):
            x_t = diffused.x_t.detach().requires_grad_()
            logit = self.discriminator.logit(replace(diffused, x_t=x_t), teacher)
            (slope,) = torch.autograd.grad(self.discriminator.generator_error(logit).sum(), x_t)
        return logit.detach(), right_pad_dims(diffused.alpha, slope) * slope

    def _weight(self, objective: Tensor, term: Tensor, diffused: Diffused) -> Tensor:
        if self.balance is None:
            return objective.new_tensor(self.gan_weight)
        squares = diffused.shard.sum(torch.stack([objective.square().sum(), term.square().sum()]))
        tiny = torch.finfo(squares.dtype).tiny
        return self.balance * (squares[0] / squares[1].clamp(min=tiny)).sqrt()
