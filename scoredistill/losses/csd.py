"""Classifier score distillation: the guidance direction alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scoredistill.diffusion.guidance import Guidance
from scoredistill.losses.distillation import ScoreDistillation
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused


class CSD(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(x_t))

    It descends -log p_t(y | x_t), the teacher's own classifier. SDS under `CFG` of scale s is SDS + (s - 1) CSD, and
    CSD under that guidance is s times CSD. A negative prompt takes the unconditional model's place.

    "Text-to-3D with Classifier Score Distillation" (2023), arXiv:2310.19415.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def conditions(self, diffused: Diffused) -> Sequence[Condition | None]:
        """The unconditional branch.

        Raises:
            ValueError: if the condition has neither prompt nor label.
        """
        if diffused.condition is None or not diffused.condition.has_prompt_or_label:
            raise ValueError(
                "CSD compares a prompt or class with the unconditional model: set data.init_args.prompt or labels"
            )
        return [diffused.condition.negative()]

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.predictions[0].epsilon
