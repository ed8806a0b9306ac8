"""The base of every objective, and what it returns: a gradient with respect to the generator's samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


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
        g: (B, *D) gradient with respect to each sample x.
        target: A, the guided teacher.
        baseline: B, (B, *D) in epsilon units.
        reweighting: h and log r.
        factor: (B,) of the gradient normalizer; 1 without one.
        picture: (B, 3, H, W) gradient with respect to the rendered picture, on top of g; None: none.
        metrics: further scalars to report.
    """

    g: Tensor
    target: Prediction
    baseline: Tensor
    reweighting: Reweighting
    factor: Tensor
    picture: Tensor | None = None
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


class Objective(nn.Module, ABC):
    """What a `Distiller` drives: a gradient with respect to the generator's samples. A subclass implements `gradient`.

    An objective is a pure function of the diffused samples and the networks: it owns no optimizer and keeps no state
    but what `observe` takes in. Its submodules that are a `TrainedPart` (critics, discriminators) are trained with the
    generator. An objective that adds a term to another one holds it and calls its methods.
    """

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        """Give the parts what they take from the teacher and from the times. The `Distiller` calls it once."""
        del timesteps
        for module in self.modules():
            if isinstance(module, Critic):
                module.bind(teacher)

    @abstractmethod
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        """The gradient with respect to x at each sample.

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            guidance: how the teacher is asked; None: CFG of scale 1, the conditional model itself.
        """

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        """Let running statistics take in a finished training step; nothing to do without any."""
        del diffused, gradient
