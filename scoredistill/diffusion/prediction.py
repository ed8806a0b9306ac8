"""A denoiser's prediction, convertible between epsilon, x0, v, flow velocity and score."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import MORE_NOISE, MORE_SIGNAL, Schedule, require_noise, require_signal
from scoredistill.types import right_pad_dims
from scoredistill.types.batch import WHOLE
from scoredistill.types.checks import times_of

PredictionType = Literal["epsilon", "x0", "v", "flow", "score"]


class Prediction:
    """A model's prediction at x_t = alpha x0 + sigma epsilon, as any of

        epsilon      the noise
        x0           the clean sample
        v            alpha epsilon - sigma x0
        flow         epsilon - x0, the velocity d x_t / dt of the straight path
        score        grad log p_t(x_t) = -epsilon / sigma

    It is constructed from exactly one of them and converted to the others. The conversions hold for any alpha and
    sigma, not only for variance-preserving ones. The v and flow forms never divide by alpha or sigma alone and are
    defined at both ends of time; epsilon from x0 is undefined without noise, and x0 from epsilon without signal.

    Args:
        x_t: (B, *D) the diffused sample.
        t: its time in [0, 1]: a number, or (B,).
        schedule: alpha and sigma.
        epsilon, x0, v, flow, score: (B, *D), exactly one of them.

    Raises:
        ValueError: if not exactly one is given, or its shape is not that of x_t; on access, if the quantity is
            undefined at one of the times (checked on the CPU only).
    """

    def __init__(
        self,
        x_t: Tensor,
        t: float | Tensor,
        schedule: Schedule,
        *,
        epsilon: Tensor | None = None,
        x0: Tensor | None = None,
        v: Tensor | None = None,
        flow: Tensor | None = None,
        score: Tensor | None = None,
    ) -> None:
        given = {"epsilon": epsilon, "x0": x0, "v": v, "flow": flow, "score": score}
        values = {kind: value for kind, value in given.items() if value is not None}
        if len(values) != 1:
            raise ValueError(f"give exactly one of {', '.join(given)}; got {', '.join(values) or 'none'}")
        self.kind, self.value = next(iter(values.items()))
        if self.value.shape != x_t.shape:
            raise ValueError(f"{self.kind} has shape {tuple(self.value.shape)}, x_t {tuple(x_t.shape)}")
        self.x_t = x_t
        self.t = times_of(t, x_t).to(x_t.device)
        self.schedule = schedule
        alpha, sigma = schedule(self.t)
        self._alpha = right_pad_dims(alpha, x_t)
        self._sigma = right_pad_dims(sigma, x_t)

    @classmethod
    def of(cls, kind: PredictionType, value: Tensor, x_t: Tensor, t: float | Tensor, schedule: Schedule) -> Prediction:
        """Construct a prediction from the name of its type."""
        if kind not in get_args(PredictionType):
            raise ValueError(f"unknown prediction type {kind!r}; choose from {', '.join(get_args(PredictionType))}")
        return cls(x_t, t, schedule, **{kind: value})

    @classmethod
    def truth(
        cls, kind: PredictionType, x: Tensor, epsilon: Tensor, t: float | Tensor, schedule: Schedule
    ) -> Prediction:
        """The training target for known x and epsilon, (B, *D) each.

        Raises:
            ValueError: if the score is undefined at one of the times (checked on the CPU only).
        """
        t = times_of(t, x).to(x.device)
        alpha, sigma = (right_pad_dims(each, x) for each in schedule(t))
        x_t = alpha * x + sigma * epsilon
        match kind:
            case "epsilon":
                value = epsilon
            case "x0":
                value = x
            case "v":
                value = alpha * epsilon - sigma * x
            case "flow":
                value = epsilon - x
            case _:
                require_noise(t, schedule, "the true score", f"{MORE_NOISE}, or predict epsilon, v or flow")
                value = -epsilon / sigma
        return cls.of(kind, value, x_t, t, schedule)

    @property
    def epsilon(self) -> Tensor:
        """The noise, (B, *D)."""
        a = self._alpha
        s = self._sigma
        x_t = self.x_t
        y = self.value
        match self.kind:
            case "epsilon":
                return y
            case "x0":
                remedy = f"{MORE_NOISE}, or predict epsilon, v or flow"
                require_noise(self.t, self.schedule, "epsilon of a prediction as x0", remedy)
                return (x_t - a * y) / s
            case "v":
                return (a * y + s * x_t) / (a * a + s * s)
            case "flow":
                return (x_t + a * y) / (a + s)
            case _:
                return -s * y

    @property
    def x0(self) -> Tensor:
        """The clean sample, (B, *D)."""
        a = self._alpha
        s = self._sigma
        x_t = self.x_t
        y = self.value
        match self.kind:
            case "x0":
                return y
            case "v":
                return (a * x_t - s * y) / (a * a + s * s)
            case "flow":
                return (x_t - s * y) / (a + s)
            case _:
                what = f"x0 of a prediction as {self.kind}"
                remedy = f"{MORE_SIGNAL}, or predict x0, v or flow"
                require_signal(self.t, self.schedule, what, remedy)
                return (x_t - s * self.epsilon) / a

    @property
    def signal(self) -> Tensor:
        """alpha x0, the noise-free part of x_t, (B, *D); defined at every time."""
        if self.kind in ("epsilon", "score"):
            return self.x_t - self._sigma * self.epsilon
        return self._alpha * self.x0

    @property
    def v(self) -> Tensor:
        """alpha epsilon - sigma x0, (B, *D)."""
        return self.value if self.kind == "v" else self._alpha * self.epsilon - self._sigma * self.x0

    @property
    def flow(self) -> Tensor:
        """epsilon - x0, (B, *D)."""
        return self.value if self.kind == "flow" else self.epsilon - self.x0

    @property
    def score(self) -> Tensor:
        """grad log p_t(x_t), (B, *D)."""
        if self.kind == "score":
            return self.value
        require_noise(self.t, self.schedule, "the score", f"{MORE_NOISE}, or read epsilon")
        return -self.epsilon / self._sigma

    def ddim(self, t: Tensor) -> Tensor:
        """alpha_s x0 + sigma_s epsilon, (B, *D): the deterministic step to other times s, (B,).

        At s = 0 it is x0, also if the schedule ends in a little noise.

        "Denoising Diffusion Implicit Models" (2020), arXiv:2010.02502, equation 12 with sigma = 0.
        """
        alpha, sigma = (right_pad_dims(each, self.x_t) for each in self.schedule(t))
        clean = right_pad_dims(t == 0, self.x_t)
        moved = alpha * self.x0 + sigma * self.epsilon
        return torch.where(clean, self.x0, moved).to(self.x_t.dtype)

    def with_epsilon(self, epsilon: Tensor) -> Prediction:
        """Another prediction of the same x_t, (B, *D)."""
        return Prediction(self.x_t, self.t, self.schedule, epsilon=epsilon)

    def detach(self) -> Prediction:
        """The same prediction, detached."""
        return Prediction.of(self.kind, self.value.detach(), self.x_t, self.t, self.schedule)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Prediction({self.kind}, x_t={tuple(self.x_t.shape)}, {type(self.schedule).__name__})"


def noise_like(x: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape of x, drawn on the CPU so that all devices use the same numbers.

    Args:
        x: (B, *D).
        rng: CPU generator to draw from; None: torch's global one.
    """
    return WHOLE.noise_like(x, rng)
