"""Teachers for the laws: a mixture that is conditioned on everything, and one that predicts another type."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from scoredistill.diffusion.prediction import Prediction, PredictionType
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.mlp import MLPBackbone
from scoredistill.ranges import require
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, right_pad_dims

PROMPTED = Condition(("north", "east", "south", "west", "north", "up"))
"""Six rows with a text each."""


class ReferenceTeacher(Teacher):
    """A mixture of three Gaussians in closed form, moved by the prompt and by the label of each row.

    It also has a small network with random weights, from which critics and discriminators can start.

    Args:
        shape: *D, the shape of one sample, >= 1.
        schedule: noise schedule; None: `CosineSchedule`.
    """

    def __init__(self, shape: Sequence[int] = (2,), schedule: Schedule | None = None) -> None:
        require(">= 1", shape=shape)
        means = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mixture = GaussianMixture(means.to(torch.get_default_dtype()), 0.4, schedule=schedule)
        super().__init__(mixture.schedule)
        self.mixture = mixture
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = MLPBackbone(shape, hidden=16, layers=2)
            torch.nn.init.normal_(network.out.weight)
        self.denoiser = Denoiser(network)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        epsilon = self.mixture(self._centered(x_t, t, condition), t).epsilon
        return Prediction(x_t, t, self.schedule, epsilon=epsilon)

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return self.mixture.log_prob(self._centered(x_t, t, condition), t)

    def denoiser_for(self, user: str) -> Denoiser:
        return self.denoiser

    def _centered(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """x_t minus the diffused shift of each row."""
        if condition is None:
            return x_t
        prompt = condition.prompt
        rows = len(x_t)
        texts = [prompt] * rows if prompt is None or isinstance(prompt, str) else list(prompt)
        shift = torch.stack([_direction(f"prompt {text}" if text else None, x_t) for text in texts])
        if condition.label is not None:
            shift = shift + torch.stack([_direction(f"label {label}", x_t) for label in condition.label.tolist()])
        return x_t - right_pad_dims(self.schedule(t)[0], x_t).to(x_t) * shift


def _direction(name: str | None, like: Tensor) -> Tensor:
    """A fixed direction for each name, *D; zero for none."""
    if name is None:
        return torch.zeros_like(like[0])
    rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return 0.8 * torch.randn(like.shape[1:], generator=rng, dtype=torch.float64).to(like)


class WithPrediction(Teacher):
    """A teacher whose predictions are converted to another type.

    Args:
        teacher: the model of p.
        kind: epsilon, x0, v, flow or score.
    """

    def __init__(self, teacher: Teacher, kind: PredictionType) -> None:
        super().__init__(teacher.schedule)
        self.teacher = teacher
        self.kind = kind

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self._converted(self.teacher(x_t, t, condition))

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        return [self._converted(each) for each in self.teacher.predict_many(x_t, t, conditions)]

    def encode(self, x: Tensor) -> Tensor:
        return self.teacher.encode(x)

    def decode(self, x: Tensor) -> Tensor:
        return self.teacher.decode(x)

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        return self.teacher.encode_prompt(condition, rows)

    def denoiser_for(self, user: str) -> Denoiser:
        return self.teacher.denoiser_for(user)

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return self.teacher.log_prob(x_t, t, condition)

    def _converted(self, prediction: Prediction) -> Prediction:
        value = getattr(prediction, self.kind)
        return Prediction.of(self.kind, value, prediction.x_t, prediction.t, self.schedule)
