"""Many-step samplers of any teacher, the reference for one-step students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.schedule import Schedule
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition


@dataclass(frozen=True)
class Churn:
    """Fresh noise in every step, which corrects earlier errors. It raises the noise level by a factor 1 + gamma:

        gamma = min(amount / steps, sqrt(2) - 1)

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364, algorithm 2.

    Args:
        amount: S_churn, >= 0; 0: the deterministic sampler.
        low, high: range of sigma / alpha in which noise is added, >= 0.
        noise: S_noise, factor of the added noise's standard deviation, >= 0.
    """

    amount: float = 0.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003

    def __post_init__(self) -> None:
        require(">= 0", amount=self.amount, low=self.low, high=self.high, noise=self.noise)


@torch.no_grad()
def sample(
    teacher: Teacher,
    n: int,
    shape: Sequence[int],
    condition: Condition | None = None,
    *,
    steps: int = 18,
    solver: Literal["heun", "euler"] = "heun",
    guidance: Guidance | None = None,
    churn: Churn | None = None,
    ends: tuple[float, float] = (0.002, 80.0),
    rho: float = 7.0,
    rng: torch.Generator | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """Solve the probability flow from noise to data: with s = sigma / alpha and y = x_t / alpha, for any schedule,

        dy / ds = epsilon(x_t),    y(s_max) ~ N(0, s_max^2 I)

    on EDM's grid s_i = (s_max^(1/rho) + i / (steps - 1) (s_min^(1/rho) - s_max^(1/rho)))^rho, then 0. Euler's method
    has order 1. Heun's method has order 2 and evaluates the teacher 2 steps - 1 times.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364, algorithms 1 and 2.

    Args:
        teacher: the model of p.
        n: number of samples.
        shape: *D, the shape of one sample.
        condition: n rows, or None.
        steps: number of noise levels, >= 1.
        solver: heun or euler.
        guidance: guidance of the teacher; None: the conditional model without guidance.
        churn: noise added in every step; None: deterministic.
        ends: s_min and s_max, clamped to the schedule's range.
        rho: exponent of the grid; larger values put more levels near s_min.
        rng: CPU generator for all noise.
        z: (n, *D) standard normal noise from which it starts, y = s_max z; None: drawn.

    Returns:
        (n, *D).

    Raises:
        ValueError: if steps is below 1 or the solver is unknown.
    """
    if steps < 1 or solver not in ("heun", "euler"):
        raise ValueError(f"sample needs steps >= 1 and solver heun or euler, got {steps} and {solver!r}")
    guidance = guidance or CFG()
    churn = churn or Churn()
    condition = teacher.encode_prompt(condition, n)
    tensors = (tensor for tensor in (*teacher.parameters(), *teacher.buffers()) if tensor.is_floating_point())
    like = next(tensors, torch.empty(0))
    levels = _levels(teacher.schedule, steps, ends, rho)

    def noise() -> Tensor:
        return torch.randn(n, *shape, generator=rng, dtype=like.dtype).to(like.device)

    def epsilon(y: Tensor, s: float) -> Tensor:
        t = teacher.schedule.t_at_log_snr(-2 * torch.full((n,), s, dtype=torch.float64).log()).to(y)
        alpha = teacher.schedule.alpha(t).reshape(-1, *[1] * len(shape))
        return guidance(teacher, alpha * y, t, condition).epsilon

    y = levels[0] * (noise() if z is None else z.to(like))
    for s, s_next in zip(levels, [*levels[1:], 0.0], strict=True):
        gamma = min(churn.amount / steps, 2**0.5 - 1) if churn.low <= s <= churn.high else 0.0
        s_hat = s * (1 + gamma)
        if gamma > 0:
            y = y + (s_hat**2 - s**2) ** 0.5 * churn.noise * noise()
        slope = epsilon(y, s_hat)
        euler = y + (s_next - s_hat) * slope
        if solver == "heun" and s_next > 0:
            slope = (slope + epsilon(euler, s_next)) / 2
        y = y + (s_next - s_hat) * slope
    return y


def _levels(schedule: Schedule, steps: int, ends: tuple[float, float], rho: float) -> list[float]:
    """The noise levels s_max ... s_min, clamped to the schedule's range."""
    requested = torch.tensor(ends, dtype=torch.float64)
    low, high = (-0.5 * schedule.log_snr(schedule.t_at_log_snr(-2 * requested.log()))).exp().tolist()
    fraction = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = high ** (1 / rho) + fraction * (low ** (1 / rho) - high ** (1 / rho))
    return (levels**rho).tolist()
