"""An adversarial term: added to any objective, alone (LADD), and beside the teacher's clean prediction (ADD)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.schedule import Schedule
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.diffusion.timesteps import LogitNormalTimesteps, TimestepSampler
from scoredistill.losses.distillation import SDS, FDistill
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims


class WithGAN(Objective):
    """g = g_loss + lambda alpha grad l(D(x_t)), with l the generator's adversarial loss.

    x_t and t are those of the objective, or others if the discriminator has `timesteps` of its own.

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
        at = self.discriminator.at_own_times(diffused)
        logit, term = adversarial_term(self.discriminator, at, teacher, self.critic)
        with self.discriminator.with_logit(at, logit):
            objective = self.loss.gradient(diffused, teacher, guidance)
        scale = self.scale(diffused)
        term = term * (right_pad_dims(scale, term) if isinstance(scale, Tensor) else scale)
        norms = [each.flatten(1).norm(dim=1).mean() for each in (objective.g, term)]
        weight = self._weight(objective.g, term, diffused)
        metrics = {"gan/distillation_norm": norms[0], "gan/norm": norms[1], "gan/weight": weight}
        return replace(objective, g=objective.g + weight * term, metrics={**objective.metrics, **metrics})

    def scale(self, diffused: Diffused) -> float | Tensor:
        """Factor of each sample's term in addition to lambda, a number or (B,); the default is 1."""
        del diffused
        return 1.0

    def place(self, diffused: Diffused) -> Diffused:
        return self.loss.place(diffused)

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        self.loss.observe(diffused, gradient)

    def _weight(self, objective: Tensor, term: Tensor, diffused: Diffused) -> Tensor:
        if self.balance is None:
            return objective.new_tensor(self.gan_weight)
        squares = diffused.shard.sum(torch.stack([objective.square().sum(), term.square().sum()]))
        tiny = torch.finfo(squares.dtype).tiny
        return self.balance * (squares[0] / squares[1].clamp(min=tiny)).sqrt()


class LADD(Objective):
    """g = alpha grad l(D(x_t)): the adversarial term alone, through the frozen teacher's features at several depths.

    The teacher's Jacobian is part of the gradient. Each depth has its own head, with the hinge loss, at noise levels of
    the discriminator's own: log(t / (1 - t)) ~ N(1, 1). It needs data, in the paper the teacher's samples under
    guidance, and calls neither the teacher's output nor a critic.

    Calls per step: the discriminator's features once.

    "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation" (2024), arXiv:2403.12015.

    Args:
        discriminator: D; None: the paper's, as above.
    """

    def __init__(self, discriminator: DiscriminatorRatio | None = None) -> None:
        super().__init__()
        own = {"depths": "all", "timesteps": LogitNormalTimesteps(1.0, 1.0)}
        self.discriminator = discriminator or DiscriminatorRatio("teacher", "hinge", **own)  # type: ignore[arg-type]

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        super().bind(teacher, timesteps)
        self.discriminator.bind(teacher, None)

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        at = self.discriminator.at_own_times(diffused)
        logit, term = adversarial_term(self.discriminator, at, teacher)
        ones = torch.ones_like(at.t)
        return Gradient(term, at, None, None, Reweighting(ones), ones, metrics={"gan/logit": logit.mean()})


class ADDWeight(TimeWeight):
    """w = 2 lambda c sigma / alpha, with which SDS is lambda c grad_x |x - f(x_t)|^2, f the teacher's clean prediction.

    exponential   c = alpha, w = 2 lambda sigma
    sds           c = alpha sigma / 2, w = lambda sigma^2, that of `SDS`

    Args:
        scale: lambda, >= 0.
        kind: exponential or sds.
    """

    def __init__(self, scale: float = 2.5, kind: Literal["exponential", "sds"] = "exponential") -> None:
        require(">= 0", scale=scale)
        self.scale, self.kind = scale, kind

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        _, sigma = schedule(t)
        return self.scale * (2 * sigma if self.kind == "exponential" else sigma**2)


class ADDDistillation(WithGAN):
    """g = n alpha grad l(D(x_t)) + 2 lambda c(t) (x - f(x_t)),    f the guided teacher's clean prediction, stopped

    Adversarial diffusion distillation for samples of n dimensions. The second term is SDS with the weight
    2 lambda c sigma / alpha, from n times the mean squared distance; a sum would leave the published lambda's first
    term without effect.

    Calls per step: teacher 1, and the discriminator's features once.

    "Adversarial Diffusion Distillation" (2023), arXiv:2311.17042. There D sees clean pictures through DINOv2's
    features; here diffused samples, through the teacher's. Student inputs are noised data: `OneStepUNet(inputs="data")`
    with four times; and t has its full range.

    Args:
        discriminator: D; None: hinge on the teacher's features at all depths, with R1 of 1e-5 as a difference quotient,
            because attention has no second derivative everywhere.
        distillation_weight: lambda, >= 0.
        kind: c: exponential, alpha; or sds, that of SDS's weight sigma^2.
    """

    def __init__(
        self,
        discriminator: DiscriminatorRatio | None = None,
        distillation_weight: float = 2.5,
        kind: Literal["exponential", "sds"] = "exponential",
    ) -> None:
        require(">= 0", distillation_weight=distillation_weight)
        own = discriminator or DiscriminatorRatio("teacher", "hinge", r1=1e-5, r1_step=0.01, depths="all")
        super().__init__(SDS(ADDWeight(distillation_weight, kind)), own, gan_weight=1.0)

    def scale(self, diffused: Diffused) -> float | Tensor:
        """The number of a sample's dimensions."""
        return float(diffused.x_t[0].numel())


def adversarial_term(
    discriminator: DiscriminatorRatio, diffused: Diffused, teacher: Teacher, critic: Critic | None = None
) -> tuple[Tensor, Tensor]:
    """D(x_t), (B,), and alpha grad l(D(x_t)), (B, *D): the gradient in x of each sample's loss, through the features.

    Args:
        discriminator: D; l is the mean of the generator's loss over its heads.
        diffused: the generator's samples, diffused to the times at which D is evaluated.
        teacher: the model of p.
        critic: the critic whose features it may use; None: none.
    """
    quiet = [module for module in (discriminator, critic) if module is not None]
    with torch.enable_grad(), eval_mode(*quiet):
        x_t = diffused.x_t.detach().requires_grad_()
        logits = discriminator.logits(replace(diffused, x_t=x_t), teacher)
        (slope,) = torch.autograd.grad(discriminator.generator_error(logits).mean(1).sum(), x_t)
    return logits.detach().mean(1), right_pad_dims(diffused.alpha, slope) * slope
