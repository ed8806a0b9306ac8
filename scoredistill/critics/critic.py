"""The base of critics, and of every part of an objective that is trained beside the generator."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
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
    """

    needs_population = False
    """Whether it uses all of the generator's particles, including those of other processes."""

    def bind(self, teacher: Teacher) -> None:
        """Take what is not given, a network for example, from the teacher. Does nothing by default.

        The `Distiller` calls it once.

        Args:
            teacher: the model of p.
        """
        del teacher

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
