"""A critic that is trained by denoising score matching on the generator's samples."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss

from scoredistill.critics.backbones import Backbone
from scoredistill.critics.base import Critic
from scoredistill.diffusion.prediction import Prediction, PredictionType
from scoredistill.diffusion.schedule import Schedule
from scoredistill.types import Condition, Noised, Sample, right_pad_dims


class NetworkCritic(Critic):
    """A network B_phi trained along with the generator:

        min_phi E ||y_phi(x_t, t, condition) - y||^2

    with y the true value of its prediction type. Its minimum is the score of q_t. The input is scaled by
    1 / sqrt(alpha^2 + sigma^2), so that the network sees about unit variance under every schedule.

    ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with VSD, 2023, arXiv:2305.16213.

    Args:
        network: the backbone.
        prediction: what it outputs: epsilon, x0, v, flow or score. v is well-scaled at every noise level.
        schedule: noise schedule; None: the teacher's.
    """

    trainable = True

    def __init__(self, network: Backbone, prediction: PredictionType = "v", schedule: Schedule | None = None) -> None:
        super().__init__(schedule)
        self.network, self.prediction = network, prediction

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Prediction:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scale = right_pad_dims((alpha**2 + sigma**2).rsqrt(), x_t)
        output = self.network(scale * x_t, self.schedule.log_snr(t), condition)
        return Prediction.of(self.prediction, output, x_t, t, self.schedule)

    def training_loss(self, noised: Noised) -> Tensor:
        predicted = self(noised.x_t, noised.t, noised.condition, noised.sample)
        truth = Prediction.truth(self.prediction, noised.sample.x.detach(), noised.epsilon, noised.t, self.schedule)
        return mse_loss(predicted.value, truth.value)
