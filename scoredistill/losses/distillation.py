"""One gradient, g = w(t) h(r) (A - B), and its nested objectives: SDS is VSD is f-distill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from scoredistill.critics.analytic import DiracCritic
from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance, predict_distinct
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import SigmaSquaredWeight, TimeWeight
from scoredistill.divergences import Divergence, ReverseKL
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.losses.reweighting import RatioWeighted
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.ratios.normalizers import RatioNormalizer, WeightNormalizer
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, right_pad_dims
from scoredistill.types.checks import require_shape


class GradientNormalizer(nn.Module, ABC):
    """A positive factor of each sample's gradient. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, diffused: Diffused, target: Prediction) -> Tensor:
        """The factor, (B,).

        Args:
            diffused: the diffused samples.
            target: the guided teacher's prediction.
        """


class DMDNormalizer(GradientNormalizer):
    """(sigma / alpha) / mean|x - x0|, with x0 the teacher's clean prediction and the mean over a sample's dimensions.

    Multiplied by A - B this is the difference of the clean predictions over the teacher's correction, so that all noise
    levels contribute equally. It is invariant to scaling x, the data and sigma together. The denominator is at least
    `floor` times (rms(x0) + sigma / alpha), so that the gradient is finite at x = x0. DMD uses it with
    `UniformWeight`.

    "One-step Diffusion with Distribution Matching Distillation" (2023), arXiv:2311.18828, equation 8.

    Args:
        floor: smallest denominator, relative to the scale of the data and of the noise, > 0.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        require("> 0", floor=floor)
        super().__init__()
        self.floor = floor

    def forward(self, diffused: Diffused, target: Prediction) -> Tensor:
        alpha, sigma = diffused.alpha, diffused.sigma
        # Numerator and denominator are multiplied by alpha, so that the factor is defined at alpha = 0: 1 / floor.
        signal = target.signal.flatten(1)
        correction = (right_pad_dims(alpha, signal) * diffused.sample.x.detach().flatten(1) - signal).abs().mean(1)
        scale = (signal**2).mean(1).sqrt() + sigma
        return sigma / correction.maximum(self.floor * scale).clamp(min=torch.finfo(sigma.dtype).tiny)


class ScoreDistillation(Objective, ABC):
    """g(x; t, epsilon) = w(t) h(r) (A - B), in epsilon units.

    A is the guided teacher's epsilon. A subclass implements `baseline`, which returns B. It may override `reweight`
    (h), `conditions` (further conditions of the teacher at x_t) and `prepare` (another x_t). All four run under
    `torch.no_grad()`; code that differentiates through a network uses `torch.enable_grad()`.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient, `DMDNormalizer` for example; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None) -> None:
        super().__init__()
        self.weight = weight or SigmaSquaredWeight()
        self.normalizer = normalizer

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        """The diffused samples at which A and B are evaluated; the default returns them unchanged.

        A subclass may return `diffused.at(t, epsilon)` with another time or noise, for example from DDIM inversion.
        Trained critics still learn from the step's own samples.
        """
        del teacher, guidance
        return diffused

    def conditions(self, diffused: Diffused) -> Sequence[Condition | None]:
        """Further conditions to evaluate the teacher under, in the same call; see `diffused.predictions`."""
        del diffused
        return ()

    @abstractmethod
    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        """B, (B, *D) in epsilon units.

        Args:
            diffused: the diffused samples, with A as `target` and the teacher's `predictions` under this objective's
                `conditions`.
            teacher: the model of p.
            guidance: the guidance of A.
        """

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        """h(r), (B,); the default is 1."""
        del teacher
        return Reweighting(torch.ones_like(diffused.t))

    @torch.no_grad()
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        """The gradient with respect to x at each sample.

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            guidance: of the teacher; None: CFG of scale 1, the conditional model.

        Raises:
            ValueError: if a part has the wrong shape, or the gradient is undefined at an end of time.
        """
        guidance = guidance or CFG()
        diffused, target = self._teacher_predictions(self.prepare(diffused, teacher, guidance), teacher, guidance)
        baseline = self.baseline(diffused, teacher, guidance)
        require_shape(baseline, diffused.x_t.shape, f"the baseline of {type(self).__name__}")
        reweighting = self.reweight(diffused, teacher)
        w = self.weight(diffused.t, diffused.schedule)
        factor = torch.ones_like(diffused.t) if self.normalizer is None else self.normalizer(diffused, target)
        self._require_rows(len(diffused.t), reweighting, w, factor)
        g = right_pad_dims(w * reweighting.h * factor, diffused.x_t) * (target.epsilon - baseline)
        if diffused.at_end:
            require_finite_gradient(g, diffused)
        return Gradient(g, diffused, target, baseline, reweighting, factor)

    def _teacher_predictions(
        self, diffused: Diffused, teacher: Teacher, guidance: Guidance
    ) -> tuple[Diffused, Prediction]:
        """The samples with `predictions`, and A, from one call of the teacher."""
        x_t, condition = diffused.x_t, diffused.condition
        guided = guidance.conditions(condition, teacher, len(x_t))
        predictions = predict_distinct(teacher, x_t, diffused.t, [*guided, *self.conditions(diffused)])
        target = guidance.combine(predictions[: len(guided)], condition)
        require_shape(target.x_t, x_t.shape, f"x_t of {type(guidance).__name__}'s prediction")
        return replace(diffused, predictions=predictions[len(guided) :], target=target), target

    def _require_rows(self, rows: int, reweighting: Reweighting, w: Tensor, factor: Tensor) -> None:
        """Check that there is one number per sample: a column (B, 1) would broadcast to (B, B)."""
        own = type(self).__name__
        parts = {f"log_r of {own}.reweight": reweighting.log_r, f"log_r_used of {own}.reweight": reweighting.log_r_used}
        parts |= {f"h of {own}.reweight": reweighting.h, f"the weight of {type(self.weight).__name__}": w}
        parts |= {f"the factor of {type(self.normalizer).__name__}": factor}
        for what, value in parts.items():
            if value is not None and value.shape != (rows,):
                require_shape(value, (rows,), what)


def require_finite_gradient(g: Tensor, diffused: Diffused) -> None:
    """Raise an error if the gradient at an end of time is not finite.

    Raises:
        ValueError: if it is not finite.
    """
    if not bool(torch.isfinite(g).all()):
        raise ValueError(
            f"the gradient has no value at an end of {type(diffused.schedule).__name__}, t = 0 or 1: draw t between "
            "them (low and high of the timesteps)"
        )


class FDistill(RatioWeighted, ScoreDistillation):
    """g = w(t) h(r) (epsilon_teacher - epsilon_critic),    h(r) = r^2 f''(r),    r = p_t / q_t

    With w = alpha / sigma and exact parts, E[g] is the gradient of D_f(p_t || q_t) = E_q[f(r)].

    "One-step Diffusion Models with f-Divergence Distribution Matching" (2025), arXiv:2502.15681.

    Args:
        divergence: f.
        critic: the model of the generator's score.
        ratio: the model of r; required unless h is constant.
        ratio_normalizers: applied to log r in order, `ClampRatio` or `TimeBinNormalizer` for example.
        weight_normalizer: applied to h, `BatchMeanNormalizer` for example; None: no normalization.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.

    Raises:
        ValueError: if the divergence requires a ratio and none is given.
    """

    def __init__(
        self,
        divergence: Divergence,
        critic: Critic,
        ratio: DensityRatio | None = None,
        ratio_normalizers: Sequence[RatioNormalizer] = (),
        weight_normalizer: WeightNormalizer | None = None,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        super().__init__(weight, normalizer)
        self.critic = critic
        self.take_ratio(divergence, ratio, ratio_normalizers)
        self.weight_normalizer = weight_normalizer

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        with eval_mode(self.critic):
            return self.critic(diffused).epsilon

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        found = super().reweight(diffused, teacher)
        if self.ratio is None or self.weight_normalizer is None:
            return found
        return replace(found, h=self.weight_normalizer(found.h, diffused))


class VSD(FDistill):
    """g = w(t) (epsilon_teacher - epsilon_critic): `FDistill` with `ReverseKL`, h = 1.

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213.

    Args:
        critic: the model of the generator's score.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, critic: Critic, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        super().__init__(ReverseKL(), critic, weight=weight, normalizer=normalizer)


class SDS(VSD):
    """g = w(t) (epsilon_teacher - epsilon): `VSD` with `DiracCritic`.

    "DreamFusion: Text-to-3D using 2D Diffusion" (2022), arXiv:2209.14988.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None) -> None:
        super().__init__(DiracCritic(), weight=weight, normalizer=normalizer)
