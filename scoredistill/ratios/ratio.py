"""What every density ratio owes: log r = log p_t(x_t) - log q_t(x_t)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class DensityRatio(nn.Module, ABC):
    """An estimate of r = p_t / q_t, teacher over generator, in logarithm. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        """log r at each x_t, (B,).

        Args:
            diffused: where to estimate it.
            teacher: the model of p.
            critic: the model of q; None where the loss has none.
        """

    def bind(self, teacher: Teacher, critic: Critic | None) -> None:
        """Take from teacher and critic what was not given; nothing for most. The loss calls it once."""
        del teacher, critic
