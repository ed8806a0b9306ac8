"""One gradient, g = w(t) h(r) (A - B), and its nested objectives: SDS is VSD is f-distill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from scoredistill.critics.analytic import DiracCritic
from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.diffusion.weights import SigmaSquaredWeight, TimeWeight
from scoredistill.divergences import Divergence, ReverseKL
from scoredistill.networks.eval_mode import eval_mode
from scoredistill.ranges import require
from scoredistill.ratios.normalizers import RatioNormalizer, WeightNormalizer
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims
from scoredistill.types.checks import require_shape


@dataclass(frozen=True)
class Reweighting:
    """h(r), and the ratio it came from.

    Args:
        h: (B,) weight of each sample.
        log_r: (B,) the raw estimate, before any normalizer; None where h is constant.
        log_r_used: (B,) after the normalizers.
    """

    h: Tensor
    log_r: Tensor | None = None
    log_r_used: Tensor | None = None


@dataclass(frozen=True)
class Gradient:
    """The gradient at a batch, and the parts that it is made of.

    Args:
        g: (B, *D) g = w h (A - B), times the normalizer's factor.
        target: A, the guided teacher.
        baseline: B, (B, *D) in epsilon units.
        reweighting: h and log r.
        factor: (B,) of the gradient normalizer; 1 without one.
        metrics: further scalars to report.
    """

    g: Tensor
    target: Prediction
    baseline: Tensor
    reweighting: Reweighting
    factor: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def report(self) -> dict[str, Tensor]:
        """What the step did, as scalars: norms, quantiles of log r, share clamped, effective sample size of h."""
        h = self.reweighting.h
        report = {
            "gradient_norm": self.g.flatten(1).norm(dim=1).mean(),
            "difference_norm": (self.target.epsilon - self.baseline).flatten(1).norm(dim=1).mean(),
        }
        if self.reweighting.log_r is not None and self.reweighting.log_r_used is not None:
            raw, used = self.reweighting.log_r, self.reweighting.log_r_used
            quantiles = torch.quantile(raw.double(), raw.new_tensor([0.05, 0.5, 0.95]).double())
            report |= {f"log_r/q{q:02d}": value for q, value in zip((5, 50, 95), quantiles, strict=True)}
            report["log_r/changed"] = (raw != used).double().mean()
            report["h/mean"] = h.mean()
            tiny = torch.finfo(h.dtype).tiny
            report["h/effective_sample_size"] = h.sum() ** 2 / (len(h) * (h**2).sum()).clamp(min=tiny)
        return report | dict(self.metrics)


class ScoreDistillation(nn.Module, ABC):
    """g(x; t, epsilon) = w(t) h(r) (A - B), in epsilon units.

    A is the guided teacher's epsilon; a subclass says with `baseline` what B is, and may say with `reweight` what h is.
    It is a pure function of the diffused sample and the networks: no optimizer, no state, no randomness.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient, `DMDNormalizer` for example; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None) -> None:
        super().__init__()
        self.weight = weight or SigmaSquaredWeight()
        self.normalizer = normalizer

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        """Let critics take from the teacher what they were not given. The `Distiller` calls it once."""
        del timesteps
        for module in self.modules():
            if isinstance(module, Critic):
                module.bind(teacher)

    @abstractmethod
    def baseline(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """B, (B, *D) in epsilon units."""

    def guided_baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        """B, (B, *D) in epsilon units, for a subclass whose B is the teacher's as well and has to be asked as A is.

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            guidance: how the teacher was asked for A.
        """
        del guidance
        return self.baseline(diffused, teacher)

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        """h(r), (B,); 1 unless a subclass says otherwise."""
        del teacher
        return Reweighting(torch.ones_like(diffused.t))

    @torch.no_grad()
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        """The gradient with respect to x at each sample.

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            guidance: how the teacher is asked; None: CFG of scale 1, the conditional model itself.

        Raises:
            ValueError: if a part has another shape than it must, or at an end of time the gradient has no value.
        """
        guidance = guidance or CFG()
        target = guidance(teacher, diffused.x_t, diffused.t, diffused.condition)
        require_shape(target.x_t, diffused.x_t.shape, f"x_t of {type(guidance).__name__}'s prediction")
        baseline = self.guided_baseline(diffused, teacher, guidance)
        require_shape(baseline, diffused.x_t.shape, f"the baseline of {type(self).__name__}")
        reweighting = self.reweight(diffused, teacher)
        w = self.weight(diffused.t, diffused.schedule)
        factor = torch.ones_like(diffused.t) if self.normalizer is None else self.normalizer(diffused, target)
        self._require_rows(len(diffused.t), reweighting, w, factor)
        g = right_pad_dims(w * reweighting.h * factor, diffused.x_t) * (target.epsilon - baseline)
        if diffused.at_end:
            require_finite(g, diffused)
        return Gradient(g, target, baseline, reweighting, factor)

    def _require_rows(self, rows: int, reweighting: Reweighting, w: Tensor, factor: Tensor) -> None:
        """One number for each sample, where a column (B, 1) would be broadcast to (B, B)."""
        own = type(self).__name__
        parts = {f"log_r of {own}.reweight": reweighting.log_r, f"log_r_used of {own}.reweight": reweighting.log_r_used}
        parts |= {f"h of {own}.reweight": reweighting.h, f"the weight of {type(self.weight).__name__}": w}
        parts |= {f"the factor of {type(self.normalizer).__name__}": factor}
        for what, value in parts.items():
            if value is not None:
                require_shape(value, (rows,), what)

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        """Let running statistics take in a finished training step; nothing to do without any."""
        del diffused, gradient


def require_finite(g: Tensor, diffused: Diffused) -> None:
    """Refuse a gradient that has no value at an end of time.

    Raises:
        ValueError: if it is not finite.
    """
    if not bool(torch.isfinite(g).all()):
        raise ValueError(
            f"the gradient has no value at an end of {type(diffused.schedule).__name__}, t = 0 or 1: draw t between "
            "them (low and high of the timesteps)"
        )


class GradientNormalizer(nn.Module, ABC):
    """A positive factor for each sample's gradient. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, diffused: Diffused, target: Prediction) -> Tensor:
        """The factor, (B,).

        Args:
            diffused: the diffused samples.
            target: the guided teacher's prediction.
        """


class DMDNormalizer(GradientNormalizer):
    """(sigma / alpha) / mean|x - x0|, with x0 the teacher's clean prediction and the mean over a sample's dimensions.

    Times A - B this is the difference of clean predictions over the teacher's own correction, so that every noise level
    pushes equally hard; it does not change when x, the data and sigma are scaled together. The denominator is kept
    above `floor` times (rms(x0) + sigma / alpha), so that x = x0 gives a finite gradient. DMD itself is this with
    `UniformWeight`.

    One-step Diffusion with Distribution Matching Distillation, 2023, arXiv:2311.18828, equation 8.

    Args:
        floor: smallest denominator, relative to the scale of the data and of the noise, > 0.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        require("> 0", floor=floor)
        super().__init__()
        self.floor = floor

    def forward(self, diffused: Diffused, target: Prediction) -> Tensor:
        alpha, sigma = diffused.schedule.alpha(diffused.t), diffused.schedule.sigma(diffused.t)
        # Numerator and denominator times alpha, so that there is a value where alpha is 0: 1 / floor.
        signal = target.signal.flatten(1)
        correction = (right_pad_dims(alpha, signal) * diffused.sample.x.detach().flatten(1) - signal).abs().mean(1)
        scale = (signal**2).mean(1).sqrt() + sigma
        return sigma / correction.maximum(self.floor * scale).clamp(min=torch.finfo(sigma.dtype).tiny)


class FDistill(ScoreDistillation):
    """g = w(t) h(r) (epsilon_teacher - epsilon_critic),    h(r) = r^2 f''(r),    r = p_t / q_t

    With w = alpha / sigma and exact parts, E[g] is the gradient of D_f(p_t || q_t) = E_q[f(r)].

    One-step Diffusion Models with f-Divergence Distribution Matching, 2025, arXiv:2502.15681.

    Args:
        divergence: which f.
        critic: the model of the generator's score.
        ratio: the model of r; needed unless the divergence's h is constant.
        ratio_normalizers: applied to log r in order, `ClampRatio` or `TimeBinNormalizer` for example.
        weight_normalizer: applied to h, `BatchMeanNormalizer` for example; None: h as it is.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.

    Raises:
        ValueError: if the divergence needs a ratio and none is given.
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
        if ratio is None and not divergence.constant:
            raise ValueError(
                f"FDistill with {type(divergence).__name__} needs a density ratio: set ratio, to ExactRatio for "
                "example, or use ReverseKL, whose h is constant"
            )
        self.divergence, self.critic, self.ratio = divergence, critic, ratio
        self.ratio_normalizers: Sequence[RatioNormalizer] = nn.ModuleList(ratio_normalizers)  # type: ignore[assignment]
        self.weight_normalizer = weight_normalizer

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        super().bind(teacher, timesteps)
        if self.ratio is not None:
            self.ratio.bind(teacher, self.critic)
        for normalizer in self.ratio_normalizers:
            normalizer.bind(timesteps, teacher.schedule)

    def baseline(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        with eval_mode(self.critic):
            return self.critic(diffused.x_t, diffused.t, diffused.condition, diffused.sample).epsilon

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        if self.ratio is None:
            return super().reweight(diffused, teacher)
        log_r = log_r_used = self.ratio(diffused, teacher, self.critic)
        for normalizer in self.ratio_normalizers:
            log_r_used = normalizer(log_r_used, diffused)
        h = self.divergence.h_from_log(log_r_used)
        return Reweighting(h if self.weight_normalizer is None else self.weight_normalizer(h), log_r, log_r_used)

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        log_r = gradient.reweighting.log_r
        if log_r is None:
            return
        for normalizer in self.ratio_normalizers:
            normalizer.observe(log_r, diffused)
            log_r = normalizer(log_r, diffused)


class VSD(FDistill):
    """g = w(t) (epsilon_teacher - epsilon_critic): `FDistill` with `ReverseKL`, h = 1.

    ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with VSD, 2023, arXiv:2305.16213.

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

    DreamFusion: Text-to-3D using 2D Diffusion, 2022, arXiv:2209.14988.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None) -> None:
        super().__init__(DiracCritic(), weight=weight, normalizer=normalizer)
