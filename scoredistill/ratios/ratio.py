"""The density ratio log r = log p_t(x_t) - log q_t(x_t), and its exact form."""

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


class ExactRatio(DensityRatio):
    """log r = log p_t(x_t) - log q_t(x_t), both in closed form, of the conditional teacher without guidance.

    Args:
        p: the exact teacher; None: the distiller's.
        q: the exact critic; None: the loss's own. Beside a learned critic, `ParticleCritic()` makes the mixture over
            the generator's batch serve as q.
    """

    def __init__(self, p: Teacher | None = None, q: Critic | None = None) -> None:
        super().__init__()
        self.p = p
        self.q = q

    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        p, q = self.p or teacher, self.q or critic
        if q is None:
            raise ValueError("ExactRatio needs an exact critic: give ExactRatio(q=ParticleCritic())")
        log_p = p.log_prob(diffused.x_t, diffused.t, diffused.condition)
        return log_p - q.log_prob(diffused)
