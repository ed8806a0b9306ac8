"""What every teacher owes: a prediction at any x_t, t and condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.types import Condition


class Teacher(nn.Module, ABC):
    """A frozen model of the score of p_t, the distribution to be distilled.

    A subclass implements `forward`. Where p_t is known in closed form it also overrides `log_prob` (`exact = True`),
    which makes exact density ratios and mode statistics possible.

    Args:
        schedule: the noise schedule that the teacher was trained with.
    """

    exact = False
    """Whether `log_prob` is implemented."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def train(self, mode: bool = True) -> Self:
        """A teacher is never in training: its dropout stays off, whatever the module around it is told."""
        del mode
        return super().train(False)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        """The prediction at x_t.

        Args:
            x_t: (B, *D).
            t: (B,) in [0, 1]; the package's own teachers take a number too.
            condition: B rows, or None for the unconditional model.
        """

    def encode(self, x: Tensor) -> Tensor:
        """Pictures to the space where the teacher lives, differentiable; for most teachers they are there already.

        Args:
            x: (B, 3, H, W) pictures in [-1, 1], or samples of the teacher's own space, which stay as they are.
        """
        return x

    def decode(self, x: Tensor) -> Tensor:
        """Samples of the teacher's own space to pictures, where these differ."""
        return x

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        """The condition with its prompt as embeddings too, for teachers that read text; otherwise as it is.

        Args:
            condition: what is asked; None: unconditional.
            rows: B, where it is known; one text for a whole batch is embedded for so many.
        """
        del rows
        return condition

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        """Predictions of the same x_t under several conditions; networks override it with one batched forward."""
        return [self(x_t, t, condition) for condition in conditions]

    def denoiser_for(self, user: str) -> Denoiser:
        """The teacher's own network, from which a critic or a student may start.

        Args:
            user: who asks, for the message.

        Raises:
            ValueError: if the teacher has none.
        """
        raise ValueError(f"{type(self).__name__} has no network that {user} could start from: give {user} its network")

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_t(x_t | condition), (B,), for teachers in closed form.

        Raises:
            TypeError: if the teacher has no closed form.
        """
        raise TypeError(
            f"{type(self).__name__} has no closed-form density; an exact ratio needs GaussianMixture, Empirical or "
            "Gallery, otherwise use a learned ratio"
        )
