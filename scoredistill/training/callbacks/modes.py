"""How particles are spread over the modes of a mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.generators.image import ImageParticles
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.training.callbacks.base import Evaluation
from scoredistill.training.data import Conditions
from scoredistill.training.module import Distillation


def mode_statistics(x: Tensor, teacher: GaussianMixture, sigma: float = 0.01) -> dict[str, float]:
    """Coverage, weights and spread of particles under a mixture.

    Each particle belongs to the component most responsible for it. `spread` is the standard deviation of particles
    around the mean of those in their mode, over the components' own (root mean square over dimensions and modes),
    1 for perfect samples; `weight_error` the largest |share - weight|; `within_3_std` the share of particles within
    three standard deviations of their component's mean (root mean square over dimensions).

    Args:
        x: (n, *D).
        teacher: the mixture.
        sigma: noise at which responsibilities are taken, for mixtures of Diracs.
    """
    flat = x.flatten(1)
    t = teacher.schedule.t_at_log_snr(torch.full((len(x),), -2.0).to(x) * torch.log(torch.tensor(sigma)).to(x))
    modes = teacher.posterior(teacher.schedule.alpha(t)[:, None].to(x) * flat, t).responsibilities.argmax(1)
    counts = torch.bincount(modes, minlength=len(teacher.means)).to(x)
    centres = torch.zeros_like(teacher.means).to(x).index_add_(0, modes, flat) / counts.clamp(min=1)[:, None]
    variance = teacher.variance.expand(len(teacher.means), flat.shape[1]).mean(1)
    if teacher.spread is not None:
        variance = variance + teacher.spread.sum(1) / flat.shape[1]
    figures = {
        "modes_covered": float((counts > 0).sum()),
        "weight_error": float((counts / len(x) - teacher.log_weights.exp()).abs().max()),
    }
    if bool((variance > 0).all()):
        # Each mode's own mean costs one particle: n_k - 1 degrees of freedom.
        freedom = (counts - 1).clamp(min=0).sum().clamp(min=1)
        scaled = ((flat - centres[modes]) ** 2).mean(1) / variance[modes].to(x)
        figures["spread"] = float((scaled.sum() / freedom).sqrt())
        distance = ((flat - teacher.means[modes].to(x)) ** 2).mean(1) / variance[modes].to(x)
        figures["within_3_std"] = float((distance <= 9).to(x).mean())
    return figures


class ModeStatistics(Evaluation):
    """Coverage, mode weights and spread of image particles under a Gaussian mixture or a data set.

    With labelled components it also counts the share of each class.
    """

    def evaluate(self, module: Distillation, data: Conditions, final: bool) -> dict[str, float]:
        generator, teacher = module.evaluated, module.distiller.teacher
        if not isinstance(generator, ImageParticles) or not isinstance(teacher, GaussianMixture):
            raise TypeError("ModeStatistics needs ImageParticles and a GaussianMixture or Empirical teacher")
        x = generator.values.detach()
        figures = mode_statistics(x, teacher)
        nearest = torch.cdist(x.flatten(1).to(teacher.means), teacher.means).min(dim=1)
        figures["nearest_mode_distance"] = float(nearest.values.mean())
        if teacher.labels is not None:
            labels = teacher.labels[nearest.indices]
            figures |= {f"class_share/{int(c)}": float((labels == c).double().mean()) for c in teacher.labels.unique()}
        return figures
