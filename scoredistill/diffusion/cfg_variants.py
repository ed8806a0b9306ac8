"""Variants of classifier-free guidance: in an interval, rescaled, projected, with an optimized scale.

All are CFG of scale s between c = epsilon_cond and u = epsilon_uncond, and differ in the direction c - u. At s = 1 each
is the conditional model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch

from scoredistill.diffusion.guidance import CFG, parallel_part
from scoredistill.diffusion.prediction import Prediction
from scoredistill.ranges import require
from scoredistill.types import Condition, right_pad_dims


class CFGVariant(CFG):
    """A guidance of a conditional and an unconditional prediction. A subclass implements `guide`.

    Args:
        scale: s, >= 0.
    """

    def combine(self, predictions: Sequence[Prediction], condition: Condition | None) -> Prediction:
        if len(predictions) == 1:
            return predictions[0]
        cond, uncond = predictions
        return self.guide(cond, uncond)

    @abstractmethod
    def guide(self, cond: Prediction, uncond: Prediction) -> Prediction:
        """The guided prediction.

        Args:
            cond: under the condition.
            uncond: without it, or under the negative prompt.
        """


class IntervalCFG(CFGVariant):
    """CFG at noise levels low <= sigma / alpha <= high, and the conditional model elsewhere.

    "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models" (2024),
    arXiv:2404.07724.

    Args:
        scale: s, >= 0.
        low: smallest sigma / alpha with guidance, >= 0.
        high: largest sigma / alpha with guidance, in (0, inf].

    Raises:
        ValueError: if a number is out of its range, or low > high.
    """

    def __init__(self, scale: float, low: float = 0.28, high: float = 2.9) -> None:
        super().__init__(scale)
        require(">= 0", low=low)
        require("(0, inf]", high=high)
        if low > high:
            raise ValueError(f"need low <= high, got {low} and {high}")
        self.low = low
        self.high = high

    def guide(self, cond: Prediction, uncond: Prediction) -> Prediction:
        alpha, sigma = cond.schedule(cond.t)
        inside = (sigma >= self.low * alpha) & ((sigma <= self.high * alpha) | (self.high == float("inf")))
        s = torch.where(inside, self.scale, 1.0).to(cond.x_t)
        c, u = cond.epsilon, uncond.epsilon
        return cond.with_epsilon(u + right_pad_dims(s, c) * (c - u))


class RescaledCFG(CFGVariant):
    """CFG scaled back to the standard deviation of the conditional prediction, for the output type y of the model:

        y_cfg = y_u + s (y_c - y_u),    y = phi y_cfg std(y_c) / std(y_cfg) + (1 - phi) y_cfg

    with the standard deviation over the dimensions of each sample.

    "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), arXiv:2305.08891, section 3.4.

    Args:
        scale: s, >= 0.
        rescale: phi, in [0, 1]; 0 is `CFG`.
        kind: the prediction type y that is rescaled: v as in the paper, epsilon, x0 or flow.

    Raises:
        ValueError: if a number is out of its range, or the kind is unknown.
    """

    def __init__(self, scale: float, rescale: float = 0.7, kind: Literal["v", "epsilon", "x0", "flow"] = "v") -> None:
        super().__init__(scale)
        require("[0, 1]", rescale=rescale)
        if kind not in ("v", "epsilon", "x0", "flow"):
            raise ValueError(f"kind: choose v, epsilon, x0 or flow, got {kind!r}")
        self.rescale = rescale
        self.kind: Literal["v", "epsilon", "x0", "flow"] = kind

    def guide(self, cond: Prediction, uncond: Prediction) -> Prediction:
        c, u = getattr(cond, self.kind), getattr(uncond, self.kind)
        if c[0].numel() == 1:
            raise ValueError("RescaledCFG needs samples of two or more dimensions, for a standard deviation")
        guided = u + self.scale * (c - u)
        tiny = torch.finfo(guided.dtype).tiny
        ratio = c.flatten(1).std(1) / guided.flatten(1).std(1).clamp(min=tiny)
        factor = self.rescale * ratio + (1 - self.rescale)
        return Prediction.of(self.kind, right_pad_dims(factor, guided) * guided, cond.x_t, cond.t, cond.schedule)


class ProjectedCFG(CFGVariant):
    """Adaptive projected guidance: the part of the direction that is parallel to the clean prediction is damped,

        x0 = x0_c + (s - 1) (d_perp + eta d_par),    d = x0_c - x0_u,  d_par = (d . x0_c / |x0_c|^2) x0_c

    after |d| has been limited to `threshold`. The parallel part raises contrast and saturation. The momentum of the
    paper is over the steps of a sampler and has no counterpart in a training step.

    "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models" (2024), arXiv:2410.02416.

    Args:
        scale: s, >= 0.
        eta: factor of the parallel part, >= 0; 1 without a threshold is `CFG`.
        threshold: largest norm of d, > 0; None: no limit.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, scale: float, eta: float = 0.0, threshold: float | None = None) -> None:
        super().__init__(scale)
        require(">= 0", eta=eta)
        require("> 0", threshold=threshold)
        self.eta = eta
        self.threshold = threshold

    def guide(self, cond: Prediction, uncond: Prediction) -> Prediction:
        # In epsilon, which is a multiple of x0 in every direction: d_x0 = -(sigma / alpha) d_epsilon.
        c = cond.epsilon
        d = c - uncond.epsilon
        if self.threshold is not None:
            alpha, sigma = cond.schedule(cond.t)
            norm = (sigma * d.flatten(1).norm(dim=1)).clamp(min=torch.finfo(sigma.dtype).tiny)
            d = d * right_pad_dims((self.threshold * alpha / norm).clamp(max=1), d).to(d)
        parallel = parallel_part(d, cond.signal)
        return cond.with_epsilon(c + (self.scale - 1) * (d - parallel + self.eta * parallel))


class CFGZeroStar(CFGVariant):
    """CFG of a flow's velocity whose unconditional part has an optimized scale:

        v = k v_u + s (v_c - k v_u),    k = v_c . v_u / |v_u|^2

    taken sample by sample. Where t >= `zero_above` the velocity is 0, as in a sampler's first steps.

    "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models" (2025), arXiv:2503.18886.

    Args:
        scale: s, >= 0.
        zero_above: smallest t at which the velocity is 0, in (0, 1]; None: never.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, scale: float, zero_above: float | None = None) -> None:
        super().__init__(scale)
        require("(0, 1]", zero_above=zero_above)
        self.zero_above = zero_above

    def guide(self, cond: Prediction, uncond: Prediction) -> Prediction:
        c, u = cond.flow, uncond.flow
        scaled = parallel_part(c, u)
        flow = scaled + self.scale * (c - scaled)
        if self.zero_above is not None:
            flow = flow * right_pad_dims((cond.t < self.zero_above).to(flow), flow)
        return Prediction(cond.x_t, cond.t, cond.schedule, flow=flow)
