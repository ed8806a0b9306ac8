"""The base of critics, and of every part of an objective that is trained beside the generator."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class TrainedPart(nn.Module, ABC):
    """A part of an objective with a training error of its own, trained beside the generator.

    The `Distiller` collects every such submodule of a loss. The critics' optimizer updates its parameters in the
    critics' turns of the update plan.
    """

    @abstractmethod
    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """The error that is minimized, one value per sample, (B,).

        Args:
            diffused: the generator's samples, detached, at the critics' times; `diffused.sample.data` are the batch's
                real samples.
            teacher: the model of p.
        """


class Critic(nn.Module, ABC):
    """A model of the score of q_t, the generator's diffused distribution: the baseline B of the one gradient.

    A subclass implements `forward`. A critic with a closed-form density also overrides `log_prob`; one that is trained
    is a `TrainedCritic`.

    Args:
        schedule: noise schedule; None: the teacher's, filled in by the `Distiller`.
    """

    needs_population = False
    """Whether it uses all of the generator's particles, including those of other processes."""

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
        """Take the schedule, and in subclasses the network, from the teacher if not given. Called by the `Distiller`.

        Raises:
            ValueError: if the critic's schedule differs from the teacher's.
        """
        own, given = self._schedule, teacher.schedule
        t = torch.linspace(0, 1, 9, dtype=torch.float64)
        if own is not None and not all(torch.allclose(a, b) for a, b in zip(own(t), given(t), strict=True)):
            raise ValueError(
                f"{type(self).__name__} has {type(own).__name__}, the teacher another {type(given).__name__}; x_t is "
                "made by the teacher's: leave the critic's out, or use a fresh critic in each Distiller"
            )
        self._schedule = given

    @abstractmethod
    def forward(self, diffused: Diffused) -> Prediction:
        """The prediction at x_t.

        Args:
            diffused: the diffused samples.
        """

    def log_prob(self, diffused: Diffused) -> Tensor:
        """log q_t(x_t), (B,), for critics in closed form.

        Raises:
            TypeError: if the critic has no closed form.
        """
        raise TypeError(
            f"{type(self).__name__} has no closed-form density; an exact ratio needs one: use ParticleCritic here, or "
            "give ExactRatio(q=ParticleCritic()) beside the learned critic"
        )

    def denoiser_for(self, user: str) -> Denoiser:
        """The critic's network, whose features a discriminator may use.

        Args:
            user: the component that uses it, for the message.

        Raises:
            ValueError: if the critic has none.
        """
        raise ValueError(f"{type(self).__name__} has no network that {user} could use")
