"""Score identity: scalars of the clean predictions f_p, f_q of teacher and critic, differentiated through both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.divergences import Divergence
from scoredistill.losses.adversarial import WithGAN
from scoredistill.losses.objective import Reweighting
from scoredistill.losses.reweighting import RatioWeighted
from scoredistill.losses.scalar import ScalarDistillation
from scoredistill.ranges import require
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.ratios.normalizers import RatioNormalizer
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.types import Diffused


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, (B, *D) -> (B,)."""
    return (a * b).flatten(1).sum(1)


def inverse_error(x: Tensor, f_p: Tensor) -> Tensor:
    """1 / mean|x - f_p| of each sample, (B,), without gradient and at most 1e5."""
    return 1 / (x - f_p).detach().abs().flatten(1).mean(1).clamp(min=1e-5)


class SiD(ScalarDistillation):
    """l = (f_p - f_q) . ((f_p - x) - a (f_p - f_q)) / mean|x - f_p|

    With the exact q, E[(f_p - f_q) . (f_p - x)] = E|f_p - f_q|^2, so that E[l] = (1 - a) E|f_p - f_q|^2 without the
    denominator, which has no gradient. a = 1/2 gives the gradient of the Fisher divergence in expectation, a = 1 that
    of `SIM` with the squared distance, and larger a correct for a critic that lags behind.

    "Score identity Distillation: Exponentially Fast Distillation of Pretrained Diffusion Models for One-Step
    Generation" (2024), arXiv:2404.04057.

    Args:
        critic: the model of the generator's score.
        alpha: a, finite.
        normalize: divide by mean|x - f_p|.
        weight: w(t); None: `UniformWeight`.
    """

    def __init__(
        self, critic: Critic, alpha: float = 1.2, normalize: bool = True, weight: TimeWeight | None = None
    ) -> None:
        require("finite", alpha=alpha)
        super().__init__(critic, weight)
        self.alpha, self.normalize = alpha, normalize

    def scalar(self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting) -> Tensor:
        x = diffused.sample.x
        f_p = target.x0
        f_q = baseline.x0
        scalar = dot(f_p - f_q, (f_p - x) - self.alpha * (f_p - f_q))
        return scalar * inverse_error(x, f_p) if self.normalize else scalar


class SiDA(WithGAN):
    """`SiD` with a = 1 and an adversarial term on the critic's features.

    "Adversarial Score identity Distillation: Rapidly Surpassing the Teacher in One Step" (2024), arXiv:2410.14919. The
    published code averages the discriminator's output over the batch; this term is sample by sample.

    Args:
        critic: the model of the generator's score.
        discriminator: D; None: a `DiscriminatorRatio` on the critic's features.
        alpha: a of `SiD`, finite.
        gan_weight: factor of the adversarial term, >= 0.
        balance: fraction of the norm of SiD's gradient, > 0, which replaces `gan_weight`; None: it is constant.
        normalize: divide SiD's scalar by mean|x - f_p|.
        weight: w(t) of SiD; None: `UniformWeight`.
    """

    def __init__(
        self,
        critic: Critic,
        discriminator: DiscriminatorRatio | None = None,
        alpha: float = 1.0,
        gan_weight: float = 0.01,
        balance: float | None = None,
        normalize: bool = True,
        weight: TimeWeight | None = None,
    ) -> None:
        loss = SiD(critic, alpha, normalize, weight)
        super().__init__(loss, discriminator or DiscriminatorRatio("critic"), gan_weight, balance)


class SIM(ScalarDistillation):
    """l = d'(f_p - f_q) . (f_q - x),    d(y) = sqrt(|y|^2 + c^2) - c

    In expectation its gradient is that of E[d(f_p - f_q)] with the distribution of x_t fixed, because the critic is the
    exact score of q: E[f_q - x | x_t] = 0. d(y) = |y|^2 is `SiD` with a = 1, up to a factor.

    "One-Step Diffusion Distillation through Score Implicit Matching" (2024), arXiv:2410.16794.

    Args:
        critic: the model of the generator's score.
        distance: pseudo_huber or square.
        c: of the pseudo-Huber distance, per square root of the number of dimensions, > 0.
        weight: w(t); None: `UniformWeight`.
    """

    def __init__(
        self,
        critic: Critic,
        distance: Literal["pseudo_huber", "square"] = "pseudo_huber",
        c: float = 0.00054,
        weight: TimeWeight | None = None,
    ) -> None:
        require("> 0", c=c)
        super().__init__(critic, weight)
        self.distance, self.c = distance, c

    def scalar(self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting) -> Tensor:
        y, error = target.x0 - baseline.x0, baseline.x0 - diffused.sample.x
        if self.distance == "square":
            return 2 * dot(y, error)
        c_squared = self.c**2 * y[0].numel()
        return dot(y, error) / (dot(y, y) + c_squared).sqrt()


class UniInstruct(RatioWeighted, ScalarDistillation):
    """l = 2 h y . (f_q - x) + (h - r h') |y|^2,    y = f_p - f_q

    with h(r) = r^2 f''(r) of a divergence, whose integral over the noise levels of E_q[h |s_p - s_q|^2] is the
    divergence of p and q themselves. With the exact critic and ratio, l has the gradient of E_q[h |y|^2] in
    expectation. h depends on x_t by grad log r = s_p - s_q = (alpha / sigma^2) y, so that the ratio's network is not
    differentiated. Forward KL (h = r) has the first term alone; reverse KL (h = 1) is `SiD` with a = 1/2, twice.

    "Uni-Instruct: One-step Diffusion Model through Unified Diffusion Divergence Instruction" (2025), arXiv:2505.20755.
    The published gradient leaves out that h in the first term depends on x_t, which is exact only if dx/dtheta is the
    same for every z; the published code also takes the norm over the batch.

    Args:
        divergence: f.
        critic: the model of the generator's score.
        ratio: the model of r; required unless h is constant.
        ratio_normalizers: applied to log r in order.
        exact: False: the published gradient.
        normalize: divide by mean|x - f_p|, as in `SiD`.
        weight: w(t); None: `UniformWeight`.

    Raises:
        ValueError: if the divergence requires a ratio and none is given.
    """

    def __init__(
        self,
        divergence: Divergence,
        critic: Critic,
        ratio: DensityRatio | None = None,
        ratio_normalizers: Sequence[RatioNormalizer] = (),
        exact: bool = True,
        normalize: bool = True,
        weight: TimeWeight | None = None,
    ) -> None:
        super().__init__(critic, weight)
        self.take_ratio(divergence, ratio, ratio_normalizers)
        self.exact = exact
        self.normalize = normalize

    def scalar(self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting) -> Tensor:
        x = diffused.sample.x
        f_p = target.x0
        f_q = baseline.x0
        y = f_p - f_q
        error = f_q - x
        log_r = reweighting.log_r_used
        h, r_h1, r2_h2 = self._derivatives(torch.zeros_like(diffused.t) if log_r is None else log_r)
        scalar = 2 * h * dot(y, error) + (h - r_h1) * dot(y, y)
        # Both weights' dependence on x_t: d h / d log r = r h' and d (h - r h') / d log r = -r^2 h''.
        slope = -r2_h2 * dot(y, y) + (2 * r_h1 * dot(y, error) if self.exact else 0)
        k = diffused.alpha / diffused.sigma**2
        scalar = scalar + (k * slope).detach() * dot(y.detach(), diffused.x_t)
        return scalar * inverse_error(x, f_p) if self.normalize else scalar

    @torch.enable_grad()
    def _derivatives(self, log_r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, r h' and r^2 h'', (B,) each, by differentiating h twice in log r."""
        log_r = log_r.detach().requires_grad_()
        h = self.divergence.h_from_log(log_r)
        if not h.requires_grad:
            return h, torch.zeros_like(h), torch.zeros_like(h)
        (first,) = torch.autograd.grad(h.sum(), log_r, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), log_r)
        return h.detach(), first.detach(), (second - first).detach()
