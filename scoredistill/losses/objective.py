"""The base of all objectives, and the gradient that they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims


@dataclass(frozen=True)
class Reweighting:
    """h(r) and the density ratio.

    Args:
        h: (B,) weight of each sample.
        log_r: (B,) the estimate before normalizers; None if h is constant.
        log_r_used: (B,) the estimate after normalizers.
    """

    h: Tensor
    log_r: Tensor | None = None
    log_r_used: Tensor | None = None


@dataclass(frozen=True)
class Gradient:
    """The gradient at a batch and its parts.

    Args:
        g: (B, *D) gradient with respect to each sample x.
        diffused: the diffused samples at which it was evaluated, which `prepare` may have changed.
        target: A, the guided teacher; None for an objective without it.
        baseline: B, (B, *D) in epsilon units; None likewise.
        reweighting: h and log r.
        factor: (B,) of the gradient normalizer; 1 without one.
        picture: (B, 3, H, W) gradient with respect to the rendered picture, in addition to g, or None.
        metrics: further scalars to report.
    """

    g: Tensor
    diffused: Diffused
    target: Prediction | None
    baseline: Tensor | None
    reweighting: Reweighting
    factor: Tensor
    picture: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def plus(self, term: Tensor, metrics: Mapping[str, Tensor]) -> Gradient:
        """With a further term of g, (B, *D), and its metrics."""
        return replace(self, g=self.g + term, metrics={**self.metrics, **metrics})

    def times(self, factor: Tensor) -> Gradient:
        """With each sample's g multiplied by a factor, (B,)."""
        return replace(self, g=right_pad_dims(factor, self.g) * self.g, factor=self.factor * factor)

    def report(self) -> dict[str, Tensor]:
        """Scalars to log: norms, quantiles of log r, the share that was clamped, the effective sample size of h."""
        h = self.reweighting.h
        report = {"gradient_norm": self.g.flatten(1).norm(dim=1).mean()}
        if self.target is not None and self.baseline is not None:
            report["difference_norm"] = (self.target.epsilon - self.baseline).flatten(1).norm(dim=1).mean()
        if self.reweighting.log_r is not None and self.reweighting.log_r_used is not None:
            raw, used = self.reweighting.log_r, self.reweighting.log_r_used
            quantiles = torch.quantile(raw.double(), raw.new_tensor([0.05, 0.5, 0.95]).double())
            report |= {f"log_r/q{q:02d}": value for q, value in zip((5, 50, 95), quantiles, strict=True)}
            report["log_r/changed"] = (raw != used).double().mean()
            report["h/mean"] = h.mean()
            tiny = torch.finfo(h.dtype).tiny
            report["h/effective_sample_size"] = h.sum() ** 2 / (len(h) * (h**2).sum()).clamp(min=tiny)
        return report | dict(self.metrics)


class Objective(nn.Module, ABC):
    """A gradient with respect to the generator's samples, used by `Distiller`. A subclass implements `gradient`.

    An objective is a pure function of the diffused samples and the networks. It owns no optimizer, and only `observe`
    changes its state. Its submodules that are a `TrainedPart` (critics, discriminators) are trained with the
    generator. An objective that adds a term to another wraps it and calls its methods.
    """

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        """Bind the critics to the teacher. The `Distiller` calls it once."""
        del timesteps
        for module in self.modules():
            if isinstance(module, Critic):
                module.bind(teacher)

    def place(self, diffused: Diffused) -> Diffused:
        """The diffused samples on which the objective is evaluated and its critics and discriminators are trained.

        The default returns them unchanged. A subclass may move them to other times, inside the step of a few-step
        student for example (`diffused.sample.segment`). The `Distiller` calls it whenever it has diffused samples.
        """
        return diffused

    @abstractmethod
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        """The gradient with respect to x at each sample.

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            guidance: of the teacher; None: CFG of scale 1, the conditional model.
        """

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        """Update running statistics after a training step. The default does nothing."""
        del diffused, gradient
