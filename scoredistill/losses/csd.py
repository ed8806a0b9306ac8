"""Classifier score distillation: the guidance direction alone."""

from __future__ import annotations

from torch import Tensor

from scoredistill.losses.distillation import ScoreDistillation
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class CSD(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(x_t))

    It descends -log p_t(y | x_t), the teacher's own classifier. SDS under `CFG` of scale s is SDS + (s - 1) CSD, and
    CSD under that guidance is s times CSD. A negative prompt takes the unconditional model's place.

    Text-to-3D with Classifier Score Distillation, 2023, arXiv:2310.19415.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def baseline(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """The teacher's epsilon without the condition.

        Raises:
            ValueError: if the condition has neither prompt nor label.
        """
        if diffused.condition is None or not diffused.condition.has_prompt_or_label:
            raise ValueError(
                "CSD is what a prompt or a class changes in the teacher's score: set data.init_args.prompt or labels"
            )
        return teacher.predict_many(diffused.x_t, diffused.t, [diffused.condition.negative()])[0].epsilon
