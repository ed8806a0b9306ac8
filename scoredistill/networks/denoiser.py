"""A network with a parameterization, which converts its raw output to a prediction and defines its training error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction, PredictionType
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.backbone import Backbone
from scoredistill.ranges import require
from scoredistill.types import Condition, Diffused, right_pad_dims
from scoredistill.types.checks import times_of

Parameterization = Literal["edm", "epsilon", "x0", "v", "flow", "score"]


class Denoiser(nn.Module):
    """A backbone F as a denoiser, with any noise schedule.

    With prediction epsilon, x0, v, flow or score, the output is that quantity y, and the input is scaled to about unit
    variance (or is x_t, without `scale_input`):

        y(x_t, t) = F(x_t / sqrt(alpha^2 + sigma^2), t)

    With prediction edm, it uses EDM's preconditioning, where s = sigma / alpha and d is the data's standard deviation:

        x0(x_t, t) = c_skip x_t / alpha + c_out F(c_in x_t / alpha, t)
        c_skip = d^2 / (s^2 + d^2),   c_out = s d / sqrt(s^2 + d^2),   c_in = 1 / sqrt(s^2 + d^2)

    With q^2 = sigma^2 + alpha^2 d^2 this is, as v, which is finite at both ends of time,

        v(x_t, t) = (alpha sigma (1 - d^2) x_t - d q (alpha^2 + sigma^2) F) / q^2

    The training error is in the units of F. For edm it is the error of x0 with EDM's weight 1 / s^2 + 1 / d^2, which
    DMD2 also uses for its critic; for v it is the error of x0 with the weight 1 / s^2 + 1.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        network: F.
        prediction: edm, or what F outputs.
        sigma_data: d, for edm only, > 0.
        scale_input: whether the input is scaled; False for published flow transformers. edm always scales.

    Raises:
        ValueError: if the parameterization is unknown or sigma_data is not positive.
    """

    def __init__(
        self,
        network: Backbone,
        prediction: Parameterization = "edm",
        sigma_data: float = 0.5,
        scale_input: bool = True,
    ) -> None:
        require("> 0", sigma_data=sigma_data)
        super().__init__()
        if prediction not in get_args(Parameterization):
            raise ValueError(f"unknown parameterization {prediction!r}; choose {', '.join(get_args(Parameterization))}")
        self.network = network
        self.prediction = prediction
        self.sigma_data = sigma_data
        self.scale_input = scale_input

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None, schedule: Schedule) -> Prediction:
        """The prediction at x_t.

        Args:
            x_t: (B, *D).
            t: in [0, 1]: a number, or (B,).
            condition: B rows, or None.
            schedule: alpha and sigma.
        """
        t = times_of(t, x_t).to(x_t.device)
        output = self.network(self._scaled(x_t, t, schedule), schedule.log_snr(t), condition).to(x_t.dtype)
        if self.prediction == "edm":
            c_skip, c_out = self._preconditioning(t, x_t, schedule)
            return Prediction(x_t, t, schedule, v=c_skip * x_t + c_out * output)
        return Prediction.of(self.prediction, output, x_t, t, schedule)

    def features_of(
        self, layers: Sequence[nn.Module], x_t: Tensor, t: Tensor, condition: Condition | None, schedule: Schedule
    ) -> list[Tensor]:
        """The outputs of several of the backbone's layers at x_t; see `Backbone.features_of`."""
        return self.network.features_of(layers, self._scaled(x_t, t, schedule), schedule.log_snr(t), condition)

    def training_error(self, diffused: Diffused) -> Tensor:
        """The `error` of the network's prediction at the diffused samples, (B,)."""
        return self.error(self(diffused.x_t, diffused.t, diffused.condition, diffused.schedule), diffused)

    def error(self, predicted: Prediction, diffused: Diffused) -> Tensor:
        """Squared error of each sample in the units of F, averaged over its dimensions, (B,).

        Args:
            predicted: result of `forward` at the diffused samples.
            diffused: the samples.
        """
        x = diffused.origin
        schedule, t = diffused.schedule, diffused.t
        kind: PredictionType = "v" if self.prediction == "edm" else self.prediction
        error = getattr(predicted, kind) - Prediction.truth(kind, x, diffused.epsilon, t, schedule).value
        if self.prediction == "edm":
            error = error / self._preconditioning(t, x, schedule)[1]
        return error.flatten(1).square().mean(1)

    def _scaled(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The backbone's input at x_t."""
        alpha, sigma = schedule(t)
        if self.prediction == "edm":
            # c_in x_t / alpha, with c_in = 1 / sqrt(s^2 + d^2)
            scale = (sigma**2 + (alpha * self.sigma_data) ** 2).rsqrt()
        else:
            scale = (alpha**2 + sigma**2).rsqrt() if self.scale_input else torch.ones_like(alpha)
        return x_t * right_pad_dims(scale, x_t).to(x_t.dtype)

    def _preconditioning(self, t: Tensor, like: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """The coefficients of x_t and of F in v, each of a shape that multiplies (B, *D)."""
        alpha, sigma = (right_pad_dims(each, like) for each in schedule(t))
        d = self.sigma_data
        q_squared = sigma**2 + (alpha * d) ** 2
        return alpha * sigma * (1 - d * d) / q_squared, -d * (alpha**2 + sigma**2) * q_squared.rsqrt()
