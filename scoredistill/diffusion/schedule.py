"""Noise schedules: x_t = alpha_t x + sigma_t epsilon, for continuous t in [0, 1], 0 clean."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types.checks import as_tensor

VANISHING = 1e-19
"""Signal or noise below this counts as none: its square is below the normal numbers of float32."""


class Schedule(ABC):
    """alpha_t and sigma_t of a diffusion process.

    A subclass implements `alpha`, `sigma` and `t_at_log_snr`, the inverse of the log signal-to-noise ratio.
    """

    _latest: tuple[weakref.ref[Tensor], int, tuple[Tensor, Tensor]] | None = None

    @abstractmethod
    def alpha(self, t: float | Tensor) -> Tensor:
        """Scale of the clean sample at t in [0, 1]: (B,) -> (B,), or of a number -> () in float64."""

    @abstractmethod
    def sigma(self, t: float | Tensor) -> Tensor:
        """Standard deviation of the noise at t in [0, 1]: (B,) -> (B,), or of a number -> () in float64."""

    @abstractmethod
    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The t in [0, 1] whose log(alpha^2 / sigma^2) is `log_snr`, clamped to the schedule's range; (B,) -> (B,)."""

    def __call__(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, (B,) each. The result for the latest tensor t is cached while that tensor is unchanged,
        since a training step uses one t many times.
        """
        if not isinstance(t, Tensor) or t.is_inference() or t.requires_grad:
            return self.alpha(t), self.sigma(t)
        latest = self._latest
        if latest is None or latest[0]() is not t or latest[1] != t._version:
            self._latest = latest = weakref.ref(t), t._version, (self.alpha(t), self.sigma(t))
        return latest[2]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_latest"}

    def log_snr(self, t: float | Tensor) -> Tensor:
        """log(alpha_t^2 / sigma_t^2), (B,) -> (B,); it falls as t grows.

        It is always finite, as networks need it: vanishing signal or noise counts as 1e-19, about -87.5 or 87.5.
        """
        alpha, sigma = self(t)
        return 2 * (_log(alpha) - _log(sigma))

    def touches_end(self, t: Tensor) -> bool:
        """Whether noise or signal vanishes at one of the times; always False on an accelerator, to avoid a sync."""
        if t.device.type != "cpu":
            return False
        alpha, sigma = self(t)
        return bool(((alpha < VANISHING) | (sigma < VANISHING)).any())


class CosineSchedule(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2): variance preserving.

    "Improved Denoising Diffusion Probabilistic Models" (2021), arXiv:2102.09672.
    """

    def alpha(self, t: float | Tensor) -> Tensor:
        t = as_tensor(t)
        # The cosine of the rounded pi / 2 is not zero, and negative in float32.
        return torch.cos(0.5 * math.pi * t).where(t < 1, 0.0)

    def sigma(self, t: float | Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * as_tensor(t))

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return (torch.atan(torch.exp(-0.5 * log_snr)) * (2 / math.pi)).clamp(max=1)


class DiscreteSchedule(Schedule):
    """Variance preserving, from the variances beta_i of N discrete steps:

        alpha_t^2 = prod_{i <= t N} (1 - beta_i)

    exact at the steps (index i is t = (i + 1) / N) and linear in log alpha_t between them. With zero terminal SNR the
    last step has alpha^2 = 2^-24, so that the log-SNR stays finite.

    "Denoising Diffusion Probabilistic Models" (2020), arXiv:2006.11239.
    "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), arXiv:2305.08891.

    Args:
        betas: (N,) variances in (0, 1]; only the last may be 1.

    Raises:
        ValueError: if there is no beta or one is out of range.
    """

    def __init__(self, betas: Tensor) -> None:
        betas = betas.detach().to("cpu", torch.float64)
        if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas <= 1)).all()) or (betas[:-1] == 1).any():
            raise ValueError("betas must be numbers in (0, 1], of which only the last may be 1")
        log_alpha = 0.5 * torch.log1p(-betas).cumsum(0).nan_to_num(neginf=-24 * math.log(2))
        self.steps = len(betas)
        self._log_alpha = torch.cat([log_alpha.new_zeros(1), log_alpha])  # (N + 1,), at t = 0, 1/N, ..., 1

    def _log_alpha_at(self, t: Tensor) -> Tensor:
        table = self._log_alpha.to(t.device)
        position = t.to(table.dtype).clamp(0, 1) * self.steps
        left = position.floor().clamp(max=self.steps - 1).long()
        return torch.lerp(table[left], table[left + 1], position - left)

    def alpha(self, t: float | Tensor) -> Tensor:
        t = as_tensor(t)
        return self._log_alpha_at(t).exp().to(t.dtype)

    def sigma(self, t: float | Tensor) -> Tensor:
        t = as_tensor(t)
        return (-torch.expm1(2 * self._log_alpha_at(t))).sqrt().to(t.dtype)

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        table = self._log_alpha.to(log_snr.device)
        target = 0.5 * torch.nn.functional.logsigmoid(log_snr.to(table.dtype))  # log alpha = 1/2 log sigmoid(log snr)
        right = torch.searchsorted(-table, -target).clamp(1, self.steps)
        low = table[right - 1]
        high = table[right]
        return (((right - 1) + (target - low) / (high - low)) / self.steps).clamp(0, 1).to(log_snr.dtype)


class LinearSchedule(DiscreteSchedule):
    """Variance preserving, with per-step variances beta that grow linearly, or whose square roots do (`scaled`).

    The defaults are Stable Diffusion's; `LinearSchedule(1e-4, 0.02, scaled=False)` is DDPM's.

    "Denoising Diffusion Probabilistic Models" (2020), arXiv:2006.11239.
    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.

    Args:
        beta_start: variance of the first step, in (0, 1).
        beta_end: variance of the last step, in (0, 1), not below beta_start.
        scaled: interpolate sqrt(beta) rather than beta.
        steps: number N of discrete steps, >= 1.
    """

    def __init__(
        self, beta_start: float = 0.00085, beta_end: float = 0.012, scaled: bool = True, steps: int = 1000
    ) -> None:
        require("(0, 1)", beta_start=beta_start, beta_end=beta_end)
        require(">= 1", steps=steps)
        if beta_start > beta_end:
            raise ValueError(f"need beta_start <= beta_end, got {beta_start} and {beta_end}")
        power = 0.5 if scaled else 1.0
        super().__init__(torch.linspace(beta_start**power, beta_end**power, steps, dtype=torch.float64) ** (1 / power))


class EDMSchedule(Schedule):
    """Variance exploding: alpha_t = 1, sigma_t = (a + t (b - a))^rho, a = sigma_min^(1/rho), b = sigma_max^(1/rho).

    `rho = inf` is the geometric VE schedule of score-based SDEs (arXiv:2011.13456). At t = 0 sigma is sigma_min.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        sigma_min: noise at t = 0, > 0.
        sigma_max: noise at t = 1, > 0 and above sigma_min.
        rho: curvature of sigma in t, in (0, inf].
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        require("> 0", sigma_min=sigma_min, sigma_max=sigma_max)
        require("(0, inf]", rho=rho)
        if sigma_min >= sigma_max:
            raise ValueError(f"need sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.rho = rho

    def alpha(self, t: float | Tensor) -> Tensor:
        return torch.ones_like(as_tensor(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        t = as_tensor(t)
        if math.isinf(self.rho):
            return self.sigma_min * (self.sigma_max / self.sigma_min) ** t
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        log_sigma = -0.5 * log_snr
        if math.isinf(self.rho):
            t = (log_sigma - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)
        else:
            low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
            t = (torch.exp(log_sigma / self.rho) - low) / (high - low)
        return t.clamp(0, 1)


class FlowSchedule(Schedule):
    """alpha_t = 1 - t, sigma_t = t: the straight path of rectified flows.

    "Flow Matching for Generative Modeling" (2022), arXiv:2210.02747.
    """

    def alpha(self, t: float | Tensor) -> Tensor:
        return 1 - as_tensor(t)

    def sigma(self, t: float | Tensor) -> Tensor:
        return as_tensor(t)

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr)


def _log(value: Tensor) -> Tensor:
    """The logarithm of a nonnegative value, finite in every floating-point type."""
    return value.clamp(min=max(VANISHING, torch.finfo(value.dtype).tiny)).log()


MORE_NOISE = "draw t above 0 (low of the timesteps)"
MORE_SIGNAL = "draw t below 1 (high of the timesteps)"


def require_noise(t: Tensor, schedule: Schedule, what: str, remedy: str) -> None:
    """Raise an error for a quantity that is undefined where sigma vanishes.

    Args:
        t: (B,).
        schedule: alpha and sigma.
        what: the quantity, for the message.
        remedy: what to change, for the message.

    Raises:
        ValueError: if sigma vanishes at one of the times.
    """
    _require(t, schedule(t)[1], "noise", schedule, what, remedy)


def require_signal(t: Tensor, schedule: Schedule, what: str, remedy: str) -> None:
    """Raise an error for a quantity that is undefined where alpha vanishes. Arguments as in `require_noise`.

    Raises:
        ValueError: if alpha vanishes at one of the times.
    """
    _require(t, schedule(t)[0], "signal", schedule, what, remedy)


def _require(t: Tensor, value: Tensor, part: str, schedule: Schedule, what: str, remedy: str) -> None:
    if t.device.type == "cpu" and bool((value < VANISHING).any()):
        at = t[value < VANISHING][0].item()
        raise ValueError(f"{what} has no value at t = {at:g}, where {type(schedule).__name__} has no {part}: {remedy}")
