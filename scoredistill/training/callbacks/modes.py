"""How particles are spread over the modes of a mixture."""

from __future__ import annotations

from typing import cast

import torch

from scoredistill.evaluation.modes import mode_statistics
from scoredistill.generators.image import ImageParticles
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.training.base import Training
from scoredistill.training.callbacks.base import Evaluation, require_part
from scoredistill.training.data import Conditions
from scoredistill.training.module import Distillation

__all__ = ["ModeStatistics", "mode_statistics"]


class ModeStatistics(Evaluation):
    """Coverage, mode weights and spread of image particles under a Gaussian mixture or a data set.

    With labelled components it also counts the share of each class.
    """

    def check(self, module: Training, data: Conditions) -> None:
        require_part(self, module.evaluated, ImageParticles, "ImageParticles (MixtureQuality looks at samples)")
        teacher = cast(Distillation, module).distiller.teacher
        require_part(self, teacher, GaussianMixture, "a GaussianMixture or Empirical teacher")

    def evaluate(self, module: Distillation, data: Conditions, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator, teacher = cast(ImageParticles, module.evaluated), cast(GaussianMixture, module.distiller.teacher)
        x = generator.values.detach()
        figures = mode_statistics(x, teacher)
        nearest = torch.cdist(x.flatten(1).to(teacher.means), teacher.means).min(dim=1)
        figures["nearest_mode_distance"] = float(nearest.values.mean())
        if teacher.labels is not None:
            labels = teacher.labels[nearest.indices]
            figures |= {f"class_share/{int(c)}": float((labels == c).double().mean()) for c in teacher.labels.unique()}
        return figures
