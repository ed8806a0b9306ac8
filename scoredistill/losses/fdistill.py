"""f-distill: distribution matching under any f-divergence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from scoredistill.critics.base import Critic
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.diffusion.weights import TimeWeight
from scoredistill.divergences import Divergence
from scoredistill.losses.base import Gradient, Reweighting, ScoreDistillation
from scoredistill.losses.normalise import GradientNormaliser
from scoredistill.networks.modes import evaluating
from scoredistill.ratios.base import DensityRatio
from scoredistill.ratios.normalise import RatioNormaliser, WeightNormaliser
from scoredistill.teachers.base import Teacher
from scoredistill.types import Noised


class FDistill(ScoreDistillation):
    """g = w(t) h(r) (epsilon_teacher - epsilon_critic),    h(r) = r^2 f''(r),    r = p_t / q_t

    With w = alpha / sigma and exact parts, E[g] is the gradient of D_f(p_t || q_t) = E_q[f(r)].

    One-step Diffusion Models with f-Divergence Distribution Matching, 2025, arXiv:2502.15681.

    Args:
        divergence: which f.
        critic: the model of the generator's score.
        ratio: the model of r; needed unless the divergence's h is constant.
        ratio_normalisers: applied to log r in order, `ClampRatio` or `TimeBinNormaliser` for example.
        weight_normaliser: applied to h, `BatchMeanNormaliser` for example; None: h as it is.
        weight: w(t); None: `SigmaSquared`.
        normaliser: rescales each sample's gradient; None: no rescaling.

    Raises:
        ValueError: if the divergence needs a ratio and none is given.
    """

    def __init__(
        self,
        divergence: Divergence,
        critic: Critic,
        ratio: DensityRatio | None = None,
        ratio_normalisers: Sequence[RatioNormaliser] = (),
        weight_normaliser: WeightNormaliser | None = None,
        weight: TimeWeight | None = None,
        normaliser: GradientNormaliser | None = None,
    ) -> None:
        super().__init__(weight, normaliser)
        if ratio is None and not divergence.constant:
            raise ValueError(
                f"FDistill with {type(divergence).__name__} needs a density ratio: set ratio, to ExactRatio for "
                "example, or use ReverseKL, whose h is constant"
            )
        self.divergence, self.critic, self.ratio = divergence, critic, ratio
        self.ratio_normalisers: Sequence[RatioNormaliser] = nn.ModuleList(ratio_normalisers)  # type: ignore[assignment]
        self.weight_normaliser = weight_normaliser

    def adopt(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        super().adopt(teacher, timesteps)
        if self.ratio is not None:
            self.ratio.adopt(teacher, self.critic)
        for normaliser in self.ratio_normalisers:
            normaliser.adopt(timesteps, teacher.schedule)

    def baseline(self, noised: Noised, teacher: Teacher) -> Tensor:
        with evaluating(self.critic):
            return self.critic(noised.x_t, noised.t, noised.condition, noised.sample).epsilon

    def reweight(self, noised: Noised, teacher: Teacher) -> Reweighting:
        if self.ratio is None:
            return super().reweight(noised, teacher)
        log_r = log_r_used = self.ratio(noised, teacher, self.critic)
        for normaliser in self.ratio_normalisers:
            log_r_used = normaliser(log_r_used, noised)
        h = self.divergence.h_from_log(log_r_used)
        return Reweighting(h if self.weight_normaliser is None else self.weight_normaliser(h), log_r, log_r_used)

    def observe(self, noised: Noised, gradient: Gradient) -> None:
        log_r = gradient.reweighting.log_r
        if log_r is None:
            return
        for normaliser in self.ratio_normalisers:
            normaliser.observe(log_r, noised)
            log_r = normaliser(log_r, noised)
