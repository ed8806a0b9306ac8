"""What every critic owes: a prediction of the generator's own distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, Sample


class Critic(nn.Module, ABC):
    """A model of the score of q_t, the generator's diffused distribution: the baseline B of the one gradient.

    A subclass implements `forward`. A critic with a closed-form density also overrides `log_prob`; one that is trained
    sets `trainable` and overrides `training_error`.

    Args:
        schedule: noise schedule; None: the teacher's, filled in by the `Distiller`.
    """

    trainable = False
    """Whether the critic has parameters of its own and a `training_error`."""
    needs_population = False
    """Whether it looks at the generator's whole population, other processes' particles among it."""

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

    def bind(self, teacher: Teacher) -> None:
        """Take from the teacher what was not given: the schedule, and in a subclass more. The `Distiller` calls it.

        Raises:
            ValueError: if the critic has another schedule than the one by which x_t will be made.
        """
        own, given = self._schedule, teacher.schedule
        t = torch.linspace(0, 1, 9, dtype=torch.float64)
        if own is not None and not all(
            torch.allclose(one(t), other(t)) for one, other in ((own.alpha, given.alpha), (own.sigma, given.sigma))
        ):
            raise ValueError(
                f"{type(self).__name__} has {type(own).__name__}, the teacher another {type(given).__name__}; x_t is "
                "made by the teacher's: leave the critic's out, or use a fresh critic in each Distiller"
            )
        self._schedule = given

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

    def denoiser_for(self, user: str) -> Denoiser:
        """The critic's own network, whose features a discriminator may look at.

        Args:
            user: who asks, for the message.

        Raises:
            ValueError: if the critic has none.
        """
        raise ValueError(f"{type(self).__name__} has no network that {user} could look at")

    def training_error(self, diffused: Diffused) -> Tensor:
        """Denoising score matching on the generator's samples: each sample's error, (B,), for trained critics.

        Raises:
            TypeError: if there is nothing to train.
        """
        raise TypeError(f"{type(self).__name__} is not trained")

    def training_loss(self, diffused: Diffused) -> Tensor:
        """The mean of `training_error`, a scalar."""
        return self.training_error(diffused).mean()
