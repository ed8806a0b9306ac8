"""A teacher for user every law can be stated."""

import torch
from torch import Tensor

from scoredistill import Condition
from scoredistill.diffusion import Prediction, PredictionType, Schedule
from scoredistill.teachers import GaussianMixture, Teacher

DIRECTIONS = {"left": [-1.0, 0.5], "up": [0.3, 1.0], "asked": [1.0, 0.2]}
DIRECTIONS |= {"asked, front view": [0.9, 0.4], "asked, side view": [0.2, 0.8], "asked, back view": [-0.4, 0.3]}


class Speaking(Teacher):
    """A labeled mixture that answers in any prediction type, and shifts with the prompt."""

    def __init__(self, kind: PredictionType = "epsilon", schedule: Schedule | None = None) -> None:
        mixture = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]), 0.4, schedule=schedule)
        super().__init__(mixture.schedule)
        self.mixture, self.kind = mixture, kind

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        prompt = condition.prompt if condition is not None else None
        texts = [prompt] * len(x_t) if prompt is None or isinstance(prompt, str) else prompt
        shift = torch.tensor([DIRECTIONS[text] if text else [0.0, 0.0] for text in texts]).to(x_t)
        epsilon = self.mixture(x_t - shift, t).epsilon
        value = getattr(Prediction(x_t, t, self.schedule, epsilon=epsilon), self.kind)
        return Prediction.of(self.kind, value, x_t, t, self.schedule)

    def log_prob(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return self.mixture.log_prob(x_t, t)
