"""The base class of teachers."""

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
    """A frozen model of the score of p_t, where p is the distribution to distill.

    A subclass implements `forward`. If p_t is known in closed form, it also overrides `log_prob`, which allows exact
    density ratios and mode statistics.

    Args:
        schedule: the noise schedule that the teacher was trained with.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def train(self, mode: bool = True) -> Self:
        """Keep the teacher in evaluation mode, without dropout, also if a parent module is set to training mode."""
        del mode
        return super().train(False)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        """The prediction at x_t.

        Args:
            x_t: (B, *D).
            t: (B,) in [0, 1]; the package's teachers also accept a number.
            condition: B rows; None: the unconditional model.
        """

    def encode(self, x: Tensor) -> Tensor:
        """Encode pictures into the teacher's space, differentiably. By default this is the space of pictures.

        Args:
            x: (B, 3, H, W) pictures in [-1, 1], or samples of the teacher's space, which are returned unchanged.
        """
        return x

    def decode(self, x: Tensor) -> Tensor:
        """Decode samples of the teacher's space to pictures. By default this is the space of pictures.

        Args:
            x: (B, *D) samples, or pictures, which are returned unchanged.
        """
        return x

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        """Add the embeddings of the condition's prompt. Teachers without a text encoder return the condition unchanged.

        Args:
            condition: the condition; None: unconditional.
            rows: B, or None if it is unknown; the embeddings of a single prompt are expanded to B rows.
        """
        del rows
        return condition

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        """Predictions at the same x_t under several conditions. Networks override it with one batched forward pass.

        Args:
            x_t: (B, *D).
            t: (B,) in [0, 1].
            conditions: conditions of B rows each; None: the unconditional model.
        """
        return [self(x_t, t, condition) for condition in conditions]

    def denoiser_for(self, user: str) -> Denoiser:
        """The teacher's network, to initialize a critic or a student.

        Args:
            user: name of the part to initialize, for the error message.

        Raises:
            ValueError: if the teacher has no network.
        """
        raise ValueError(f"{type(self).__name__} has no network to initialize {user}: give {user} its own network")

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_t(x_t | condition), (B,), for teachers in closed form.

        Raises:
            TypeError: if the teacher has no closed form.
        """
        raise TypeError(
            f"{type(self).__name__} has no closed-form density: use GaussianMixture, Empirical or Gallery, or a "
            "learned ratio"
        )
