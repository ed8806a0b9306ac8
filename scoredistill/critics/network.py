"""A critic that is trained by denoising score matching on the generator's samples."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor

from scoredistill.critics.trained import TrainedCritic
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.base import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterisation
from scoredistill.ranges import require
from scoredistill.teachers.base import Teacher
from scoredistill.types import Condition, Noised, Sample


class NetworkCritic(TrainedCritic):
    """A network B_phi trained along with the generator:

        min_phi E ||y_phi(x_t, t, condition) - y||^2

    with y the true value of its parameterisation (see `Denoiser`). Its minimum is the score of q_t.

    ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with VSD, 2023, arXiv:2305.16213.

    Args:
        network: the backbone; None: it starts as a copy of the teacher's network, parameterised as the teacher.
        prediction: what the backbone outputs: edm, epsilon, x0, v, flow or score. edm is well-scaled at every
            noise level under any schedule, v where alpha^2 + sigma^2 = 1.
        sigma_data: the data's standard deviation, for edm only, > 0.
        schedule: noise schedule; None: the teacher's.
    """

    def __init__(
        self,
        network: Backbone | None = None,
        prediction: Parameterisation = "v",
        sigma_data: float = 0.5,
        schedule: Schedule | None = None,
    ) -> None:
        require("> 0", sigma_data=sigma_data)
        super().__init__(schedule)
        self.denoiser = None if network is None else Denoiser(network, prediction, sigma_data)

    def adopt(self, teacher: Teacher) -> None:
        super().adopt(teacher)
        if self.denoiser is None:
            self.denoiser = deepcopy(teacher.network_of("the critic")).requires_grad_(True).train(self.training)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition | None, sample: Sample) -> Prediction:
        return self.network_of("the loss")(x_t, t, condition, self.schedule)

    def error(self, predicted: Prediction, noised: Noised) -> Tensor:
        return self.network_of("training").error(predicted, noised)

    def network_of(self, whom: str) -> Denoiser:
        if self.denoiser is None:
            raise ValueError("NetworkCritic has no network yet: pass network=, or put it into a Distiller")
        return self.denoiser
