"""An additional gradient of the rendered picture, before it is encoded."""

from __future__ import annotations

from dataclasses import replace

import torch

from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.losses.distillation import SDS, GradientNormalizer
from scoredistill.losses.inversion import START
from scoredistill.losses.objective import Gradient
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims


class HiFA(SDS):
    """`SDS` toward z0, the teacher's clean sample, and in the picture x toward its decoding D(z0):

        g = w(t) (alpha / sigma) (z - z0),    g_picture = lambda w(t) (alpha / sigma) (x - D(z0))

    z0 is the result of `steps` DDIM steps from x_t to 0. With one step, z - z0 = (sigma / alpha)(A - epsilon), and g is
    SDS's; lambda = 0 is then `SDS`. Without an encoder x is z, and both terms add up. Published with noise that
    falls with the square root of progress (`SquareRootTimesteps`) and stochastic steps.

    "HiFA: High-fidelity Text-to-3D Generation with Advanced Diffusion Guidance" (2023), arXiv:2305.18766.

    Args:
        picture_weight: lambda, >= 0.
        steps: DDIM steps, each one call of the guided teacher, >= 1.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        picture_weight: float = 0.1,
        steps: int = 4,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require(">= 0", picture_weight=picture_weight)
        require(">= 1", steps=steps)
        super().__init__(weight, normalizer)
        self.picture_weight, self.steps = picture_weight, steps

    @torch.no_grad()
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        gradient = super().gradient(diffused, teacher, guidance)
        first, baseline = gradient.target, gradient.baseline
        assert first is not None
        assert baseline is not None
        last = self._denoised(first, diffused, teacher, guidance or CFG())
        w = self.weight(diffused.t, diffused.schedule) * gradient.factor
        if self.steps > 1:
            alpha = right_pad_dims(diffused.alpha, diffused.x_t)
            sigma = right_pad_dims(diffused.sigma.clamp(min=torch.finfo(w.dtype).tiny), diffused.x_t)
            target = first.with_epsilon(((diffused.x_t - alpha * last.x0) / sigma).to(diffused.x_t))
            g = right_pad_dims(w, diffused.x_t) * (target.epsilon - baseline)
            gradient = replace(gradient, g=g, target=target)
        if self.picture_weight == 0:
            return gradient
        scale = self.picture_weight * w * diffused.alpha / diffused.sigma.clamp(min=torch.finfo(w.dtype).tiny)
        x = diffused.sample.picture
        shown = diffused.sample.x.detach() - last.x0 if x is None else x.detach() - teacher.decode(last.x0)
        return replace(gradient, picture=(right_pad_dims(scale, shown) * shown).to(shown.dtype))

    def _denoised(self, first: Prediction, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Prediction:
        """The last prediction of the DDIM steps."""
        prediction = first
        for k in range(1, self.steps):
            t = (diffused.t * (1 - k / self.steps)).clamp(min=START).minimum(diffused.t)
            prediction = guidance(teacher, prediction.ddim(t), t, diffused.condition)
        return prediction
