"""The base of density ratios: log r = log p_t(x_t) - log q_t(x_t)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class DensityRatio(nn.Module, ABC):
    """An estimate of log r, r = p_t / q_t, teacher over generator. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        """log r at each x_t, (B,).

        Args:
            diffused: the diffused samples.
            teacher: the model of p.
            critic: the model of q, or None.
        """

    def bind(self, teacher: Teacher, critic: Critic | None) -> None:
        """Take networks from teacher and critic if not given. The loss calls it once; the default does nothing."""
        del teacher, critic
