"""Normalisers of the gradient itself."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.ranges import require
from scoredistill.types import Noised, right_pad_dims


class GradientNormaliser(nn.Module, ABC):
    """A positive factor for each sample's gradient. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, noised: Noised, target: Prediction) -> Tensor:
        """The factor, (B,).

        Args:
            noised: the diffused samples.
            target: the guided teacher's prediction.
        """


class DMDNormaliser(GradientNormaliser):
    """(sigma / alpha) / mean|x - x0|, with x0 the teacher's clean prediction and the mean over a sample's dimensions.

    Times A - B this is the difference of clean predictions over the teacher's own correction, so that every noise level
    pushes equally hard; it does not change when x, the data and sigma are scaled together. The denominator is kept
    above `floor` times (rms(x0) + sigma / alpha), so that x = x0 gives a finite gradient. DMD itself is this with
    `UniformWeight`.

    One-step Diffusion with Distribution Matching Distillation, 2023, arXiv:2311.18828, equation 8.

    Args:
        floor: smallest denominator, relative to the scale of the data and of the noise, > 0.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        require("> 0", floor=floor)
        super().__init__()
        self.floor = floor

    def forward(self, noised: Noised, target: Prediction) -> Tensor:
        alpha, sigma = noised.schedule.alpha(noised.t), noised.schedule.sigma(noised.t)
        # Numerator and denominator times alpha, so that there is a value where alpha is 0: 1 / floor.
        signal = target.signal.flatten(1)
        correction = (right_pad_dims(alpha, signal) * noised.sample.x.detach().flatten(1) - signal).abs().mean(1)
        scale = (signal**2).mean(1).sqrt() + sigma
        return sigma / correction.maximum(self.floor * scale).clamp(min=torch.finfo(sigma.dtype).tiny)
