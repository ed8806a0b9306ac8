"""One prediction of a denoiser, readable as epsilon, x0, v, flow velocity or score."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import Schedule
from scoredistill.types import right_pad_dims

PredictionType = Literal["epsilon", "x0", "v", "flow", "score"]


class Prediction:
    """What a model says of x_t = alpha x0 + sigma epsilon, whichever of these it was trained to output:

        epsilon      the noise
        x0           the clean sample
        v            alpha epsilon - sigma x0
        flow         epsilon - x0, the velocity d x_t / dt of the straight path
        score        grad log p_t(x_t) = -epsilon / sigma

    Exactly one is given, the others are converted from it. All conversions hold for any alpha and sigma, not only for
    variance-preserving ones; the v and flow forms never divide by alpha or sigma alone.

    Args:
        x_t: (B, *D) the noised sample.
        t: (B,) its time.
        schedule: alpha and sigma.
        epsilon, x0, v, flow, score: (B, *D), exactly one of them.

    Raises:
        ValueError: if not exactly one is given, or its shape is not that of x_t.
    """

    def __init__(
        self,
        x_t: Tensor,
        t: Tensor,
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
        self.x_t, self.t, self.schedule = x_t, t, schedule
        self._alpha = right_pad_dims(schedule.alpha(t), x_t)
        self._sigma = right_pad_dims(schedule.sigma(t), x_t)

    @classmethod
    def of(cls, kind: PredictionType, value: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        """The prediction whose type is known by name only at run time."""
        if kind not in get_args(PredictionType):
            raise ValueError(f"unknown prediction type {kind!r}; choose from {', '.join(get_args(PredictionType))}")
        return cls(x_t, t, schedule, **{kind: value})

    @classmethod
    def truth(cls, kind: PredictionType, x: Tensor, epsilon: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        """What a perfect denoiser of a known x and epsilon, (B, *D) each, would output: the target of training."""
        alpha, sigma = right_pad_dims(schedule.alpha(t), x), right_pad_dims(schedule.sigma(t), x)
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
                value = -epsilon / sigma
        return cls.of(kind, value, x_t, t, schedule)

    @property
    def epsilon(self) -> Tensor:
        """The noise, (B, *D)."""
        a, s, x_t, y = self._alpha, self._sigma, self.x_t, self.value
        match self.kind:
            case "epsilon":
                return y
            case "x0":
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
        a, s, x_t, y = self._alpha, self._sigma, self.x_t, self.value
        match self.kind:
            case "x0":
                return y
            case "v":
                return (a * x_t - s * y) / (a * a + s * s)
            case "flow":
                return (x_t - s * y) / (a + s)
            case _:
                return (x_t - s * self.epsilon) / a

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
        return self.value if self.kind == "score" else -self.epsilon / self._sigma

    def detach(self) -> Prediction:
        """The same prediction without gradient."""
        return Prediction.of(self.kind, self.value.detach(), self.x_t, self.t, self.schedule)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Prediction({self.kind}, x_t={tuple(self.x_t.shape)}, {type(self.schedule).__name__})"


def noise_like(x: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """Standard normal noise shaped as x, drawn on the CPU so that every device sees the same numbers.

    Args:
        x: (B, *D).
        rng: CPU generator to draw from; None: torch's global one.
    """
    return torch.randn(x.shape, dtype=x.dtype, generator=rng).to(x.device)
