"""What every critic owes: a prediction of the generator's own distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.types import Condition, Noised, Sample


class Critic(nn.Module, ABC):
    """A model of the score of q_t, the generator's diffused distribution: the baseline B of the one gradient.

    A subclass implements `forward`. A critic with a closed-form density also overrides `log_prob`; one that is trained
    sets `trainable` and overrides `training_loss`.

    Args:
        schedule: noise schedule; None: the teacher's, filled in by the `Distiller`.
    """

    trainable = False
    """Whether the critic has parameters of its own and a `training_loss`."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self._schedule = schedule

    @property
    def schedule(self) -> Schedule:
        """The noise schedule.

        Raises:
            ValueError: if neither the constructor nor a `Distiller` has set it.
        """
        if self._schedule is None:
            raise ValueError(f"{type(self).__name__} has no schedule yet: pass schedule=, or put it into a Distiller")
        return self._schedule

    def adopt_schedule(self, schedule: Schedule) -> None:
        """Take the teacher's schedule where none was given."""
        self._schedule = self._schedule or schedule

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Prediction:
        """The prediction at x_t.

        Args:
            x_t: (B, *D).
            t: (B,).
            condition: B rows, or None.
            sample: the clean sample that was diffused, with its particles.
        """

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Tensor:
        """log q_t(x_t), (B,), for critics in closed form.

        Raises:
            TypeError: if the critic has no closed form.
        """
        raise TypeError(
            f"{type(self).__name__} has no closed-form density; an exact ratio needs one: use ParticleCritic here, or "
            "give ExactRatio(q=ParticleCritic()) beside the learned critic"
        )

    def training_loss(self, noised: Noised) -> Tensor:
        """Denoising score matching on the generator's samples, a scalar, for trained critics.

        Raises:
            TypeError: if there is nothing to train.
        """
        raise TypeError(f"{type(self).__name__} is not trained")
