"""Time weights w(t) of the one gradient, in epsilon units."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import MORE_NOISE, MORE_SIGNAL, Schedule, require_noise, require_signal


class TimeWeight(ABC):
    """w(t) >= 0 in g = w(t) h(r) (A - B)."""

    @abstractmethod
    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        """w(t), (B,) -> (B,)."""


class SigmaSquaredWeight(TimeWeight):
    """w = sigma^2: DreamFusion's and ProlificDreamer's."""

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        _, sigma = schedule(t)
        return sigma**2


class UniformWeight(TimeWeight):
    """w = 1."""

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return torch.ones_like(t)


class DivergenceWeight(TimeWeight):
    """w = alpha / sigma: E[g] is the exact gradient of the divergence between the diffused p_t and q_t.

    It is undefined where sigma is 0 and raises an error there.
    """

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        require_noise(t, schedule, "DivergenceWeight (alpha / sigma)", f"{MORE_NOISE}, or use SigmaSquaredWeight")
        alpha, sigma = schedule(t)
        return alpha / sigma


class X0Weight(TimeWeight):
    """w = sigma / alpha: g is the difference of the clean predictions x0, of one scale at every noise level.

    It is undefined where alpha is 0 and raises an error there.
    """

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        require_signal(t, schedule, "X0Weight (sigma / alpha)", f"{MORE_SIGNAL}, or use SigmaSquaredWeight")
        alpha, sigma = schedule(t)
        return sigma / alpha


class FlowWeight(TimeWeight):
    """w = (alpha + sigma) / alpha: g is the difference of the velocities, 1 / (1 - t) of a rectified flow.

    It is undefined where alpha is 0 and raises an error there.
    """

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        require_signal(t, schedule, "FlowWeight ((alpha + sigma) / alpha)", MORE_SIGNAL)
        alpha, sigma = schedule(t)
        return (alpha + sigma) / alpha
