"""A critic whose distribution is known."""

from __future__ import annotations

from copy import copy

from torch import Tensor

from scoredistill.critics.base import Critic
from scoredistill.diffusion.prediction import Prediction
from scoredistill.teachers.base import Teacher
from scoredistill.types import Condition, Sample


class ExactCritic(Critic):
    """q_t is given as an exact teacher: the generator's distribution where it is known, as in the laws.

    In a `Distiller` it is diffused by the teacher's schedule, whatever its own.

    Args:
        distribution: any teacher; with a closed form it also serves an exact ratio.
    """

    def __init__(self, distribution: Teacher) -> None:
        super().__init__(distribution.schedule)
        self.distribution = distribution

    def adopt(self, teacher: Teacher) -> None:
        self.distribution = copy(self.distribution)
        self._schedule = self.distribution.schedule = teacher.schedule

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Prediction:
        return self.distribution(x_t, t, condition)

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Tensor:
        return self.distribution.log_prob(x_t, t, condition)
