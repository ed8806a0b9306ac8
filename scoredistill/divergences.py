"""f-divergences between teacher p and generator q: D_f(p || q) = E_q[f(r)], r = p / q.

Distillation needs only h(r) = r^2 f''(r), the factor by which a divergence reweights the score difference. It is
computed from log r, the output of ratios and discriminators, so that it stays finite for very large ratios.

"One-step Diffusion Models with f-Divergence Distribution Matching" (2025), arXiv:2502.15681.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scoredistill.ranges import require

__all__ = [
    "Alpha",
    "BregmanPower",
    "Divergence",
    "ForwardKL",
    "Jeffreys",
    "JensenShannon",
    "Neyman",
    "Pearson",
    "ReverseKL",
    "SoftenedReverseKL",
    "SquaredHellinger",
]


class Divergence(ABC):
    """An f-divergence: convex f with f(1) = 0."""

    constant = False
    """Whether h does not depend on r, so that no density ratio is needed."""

    @abstractmethod
    def f(self, r: Tensor) -> Tensor:
        """f(r) for r > 0, elementwise."""

    @abstractmethod
    def h_from_log(self, log_r: Tensor) -> Tensor:
        """h = r^2 f''(r) from log r, elementwise."""

    def h(self, r: Tensor) -> Tensor:
        """h = r^2 f''(r) for r > 0, elementwise."""
        return self.h_from_log(r.log())


class ReverseKL(Divergence):
    """f = -log r, h = 1: KL(q || p), mode seeking. The divergence of VSD and DMD."""

    constant = True

    def f(self, r: Tensor) -> Tensor:
        return -r.log()

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.ones_like(log_r)


class SoftenedReverseKL(Divergence):
    """f = (r + 1) log(1/2 + 1/(2 r)), h = 1 / (r + 1)."""

    def f(self, r: Tensor) -> Tensor:
        return (r + 1) * torch.log(0.5 + 0.5 / r)

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.sigmoid(-log_r)


class JensenShannon(Divergence):
    """f = r log r - (r + 1) log((r + 1) / 2), h = r / (r + 1): twice the usual Jensen-Shannon divergence."""

    def f(self, r: Tensor) -> Tensor:
        return r * r.log() - (r + 1) * torch.log((r + 1) / 2)

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.sigmoid(log_r)


class SquaredHellinger(Divergence):
    """f = 1 - sqrt(r), h = sqrt(r) / 4."""

    def f(self, r: Tensor) -> Tensor:
        return 1 - r.sqrt()

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.exp(0.5 * log_r) / 4


class ForwardKL(Divergence):
    """f = r log r, h = r: KL(p || q), mode covering."""

    def f(self, r: Tensor) -> Tensor:
        return r * r.log()

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return log_r.exp()


class Jeffreys(Divergence):
    """f = (r - 1) log r, h = r + 1: KL(p || q) + KL(q || p)."""

    def f(self, r: Tensor) -> Tensor:
        return (r - 1) * r.log()

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return log_r.exp() + 1


class Pearson(Divergence):
    """f = (r - 1)^2, h = 2 r^2: Pearson's chi-square."""

    def f(self, r: Tensor) -> Tensor:
        return (r - 1) ** 2

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return 2 * torch.exp(2 * log_r)


class Neyman(Divergence):
    """f = (1 - r)^2 / r, h = 2 / r: Neyman's chi-square."""

    def f(self, r: Tensor) -> Tensor:
        return (1 - r) ** 2 / r

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return 2 * torch.exp(-log_r)


class Alpha(Divergence):
    """f = (r^alpha - alpha r + alpha - 1) / (alpha (alpha - 1)), h = r^alpha: the alpha family.

    alpha -> 0 is reverse KL, alpha -> 1 forward KL, alpha = 2 half of Pearson's, alpha = 1/2 four times squared
    Hellinger.

    Args:
        alpha: any real number except 0 and 1, finite.

    Raises:
        ValueError: for alpha 0 or 1; `ReverseKL` and `ForwardKL` are these limits.
    """

    def __init__(self, alpha: float) -> None:
        require("finite", alpha=alpha)
        if alpha in (0, 1):
            raise ValueError(f"Alpha({alpha:g}) is {'ReverseKL' if alpha == 0 else 'ForwardKL'}: use that class")
        self.alpha = alpha

    def f(self, r: Tensor) -> Tensor:
        a = self.alpha
        return (r**a - a * r + a - 1) / (a * (a - 1))

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.exp(self.alpha * log_r)


class BregmanPower(Divergence):
    """f = (r^-power - 1) / power, h = (1 + power) r^-power: the Bregman divergence of rho = 1 / r from 1 under p, with
    phi(rho) = (rho^(1 + power) - rho) / power.

    power -> 0 is reverse KL, power = 1 Neyman's chi-square up to a linear term in f, which no gradient sees.

    "One-step Diffusion Models with Bregman Density Ratio Matching" (2025), arXiv:2510.16983.

    Args:
        power: exponent, > 0.
    """

    def __init__(self, power: float) -> None:
        require("> 0", power=power)
        self.power = power

    def f(self, r: Tensor) -> Tensor:
        return (r**-self.power - 1) / self.power

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return (1 + self.power) * torch.exp(-self.power * log_r)
