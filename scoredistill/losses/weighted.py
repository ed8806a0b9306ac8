"""f-distill under other weights: the Rényi divergence, and density-ratio matching by a Bregman divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.divergences import Alpha, BregmanPower, ForwardKL
from scoredistill.losses.distillation import FDistill, GradientNormalizer
from scoredistill.losses.objective import Reweighting
from scoredistill.ranges import require
from scoredistill.ratios.normalizers import BatchMeanNormalizer, RatioNormalizer
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class RenyiDistill(FDistill):
    """h(r) = alpha r^alpha / E_q[r^alpha]: with w = alpha_t / sigma_t the gradient of the Rényi divergence

        log E_q[r^alpha] / (alpha - 1)

    of p_t from q_t. The expectation is the mean over the batch and its times, which makes h a batch statistic. As alpha
    tends to 0, h / alpha tends to reverse KL's; alpha = 1 is forward KL with r divided by its mean.

    "Rényi Divergence and Kullback-Leibler Divergence" (2012), arXiv:1206.2459.

    Args:
        alpha: order, > 0.
        critic: the model of the generator's score.
        ratio: the model of r.
        ratio_normalizers: applied to log r in order.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        alpha: float,
        critic: Critic,
        ratio: DensityRatio,
        ratio_normalizers: Sequence[RatioNormalizer] = (),
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("> 0", alpha=alpha)
        divergence = ForwardKL() if alpha == 1 else Alpha(alpha)
        super().__init__(divergence, critic, ratio, ratio_normalizers, BatchMeanNormalizer(), weight, normalizer)
        self.alpha = alpha

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        reweighting = super().reweight(diffused, teacher)
        return replace(reweighting, h=self.alpha * reweighting.h)


class BregmanDistill(FDistill):
    """h = rho phi''(rho),    rho = q_t / p_t = 1 / r

    which matches rho to 1 under p by the Bregman divergence of phi. It is `FDistill` with f(r) = r phi(1 / r). The
    family is phi(rho) = (rho^(1 + power) - rho) / power, with h = (1 + power) r^-power: power -> 0 is reverse KL
    (KLIEP), power = 1 twice the least squares (LSIF).

    "One-step Diffusion Models with Bregman Density Ratio Matching" (2025), arXiv:2510.16983.

    Args:
        power: exponent, > 0.
        critic: the model of the generator's score.
        ratio: the model of r.
        ratio_normalizers: applied to log r in order.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        power: float,
        critic: Critic,
        ratio: DensityRatio,
        ratio_normalizers: Sequence[RatioNormalizer] = (),
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        super().__init__(BregmanPower(power), critic, ratio, ratio_normalizers, None, weight, normalizer)
