"""The critic of a point mass: what turns VSD into SDS."""

from __future__ import annotations

from torch import Tensor

from scoredistill.critics.base import Critic
from scoredistill.diffusion.prediction import Prediction
from scoredistill.types import Condition, Sample


class DiracCritic(Critic):
    """q = delta_x, a point mass at each sample: its exact epsilon is the one that was injected,

        epsilon(x_t) = (x_t - alpha x) / sigma

    DreamFusion: Text-to-3D using 2D Diffusion, 2022, arXiv:2209.14988.
    """

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Prediction:
        if sample.epsilon is not None:
            return Prediction(x_t, t, self.schedule, epsilon=sample.epsilon)
        return Prediction(x_t, t, self.schedule, x0=sample.x.detach())
