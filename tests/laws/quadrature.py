"""The default setting of the laws, and expectations in it by Gauss-Hermite quadrature instead of sampling."""

import math

import numpy as np
import torch
from torch import Tensor

from scoredistill import Condition, Distiller
from scoredistill.critics import ExactCritic
from scoredistill.diffusion import CosineSchedule, DivergenceWeight, Guidance, Prediction
from scoredistill.divergences import Divergence
from scoredistill.generators import ImageParticles
from scoredistill.losses import FDistill, Objective
from scoredistill.ratios import ExactRatio, WeightNormalizer
from scoredistill.teachers import GaussianMixture, Teacher

ALPHA, SIGMA = 0.8, 0.6
"""The noise level of the laws."""


def time_at(alpha: float) -> float:
    """t of the cosine schedule at which alpha_t = alpha."""
    return 2 / math.pi * math.acos(alpha)


def normal_nodes(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E[f(z)], z ~ N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def normal(mean: float = 0.0, std: float = 1.0) -> GaussianMixture:
    """N(mean, std^2) in one dimension."""
    return GaussianMixture(torch.tensor([[mean]]), torch.tensor(std), schedule=CosineSchedule())


def even_nodes(n: int = 2001, width: float = 9.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E[f(z)], z ~ N(0, 1), by the trapezoid rule: exact to rounding where f is smooth."""
    nodes = torch.linspace(-width, width, n)
    weights = torch.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def expected_gradient(
    divergence: Divergence,
    teacher: Teacher,
    m: float,
    tau: float,
    alpha: float = 0.8,
    weight_normalizer: WeightNormalizer | None = None,
    nodes: tuple[Tensor, Tensor] | None = None,
) -> tuple[float, float]:
    """(d/dm, d/dtau) of D_f(p_t || q_t) for q = N(m, tau^2) from the gradient g: E[(alpha/sigma) g dx/d(m, tau)].

    x = m + tau z and epsilon are jointly normal and the exact g depends on x_t alone, so the integral is over x_t, with
    E[z | x_t] = alpha tau (x_t - alpha m) / u, u = alpha^2 tau^2 + sigma^2. The samples handed in have epsilon = 0.
    """
    z, w = nodes or even_nodes()
    u = alpha**2 * tau**2 + 1 - alpha**2
    x_t = alpha * m + u**0.5 * z
    loss = FDistill(
        divergence,
        ExactCritic(normal(m, tau)),
        ExactRatio(),
        weight_normalizer=weight_normalizer,
        weight=DivergenceWeight(),
    )
    distiller = Distiller(ImageParticles(torch.zeros(1, 1)), teacher, loss)
    t = torch.full_like(z, time_at(alpha))
    g = distiller.gradient(x_t[:, None] / alpha, t=t, epsilon=torch.zeros(len(z), 1))[:, 0]
    return float((w * g).sum()), float((w * g * alpha * tau * z / u**0.5).sum())


def one_dimension(loss: Objective, teacher: Teacher, guidance: Guidance | None = None) -> Distiller:
    """A distiller whose samples are given to `gradient`."""
    return Distiller(ImageParticles(torch.zeros(1, 1)), teacher, loss, guidance)


def moments(distiller: Distiller, x: float, condition: Condition | None = None) -> tuple[float, float]:
    """Mean and variance over epsilon of g at x."""
    z, w = normal_nodes(40)
    t = torch.full((40,), time_at(ALPHA))
    g = distiller.gradient(torch.full((40, 1), x), t=t, epsilon=z[:, None], condition=condition)[:, 0]
    mean = (w * g).sum()
    return float(mean), float((w * (g - mean) ** 2).sum())


class Prompted(Teacher):
    """p(.|y) = N(1, S^2) and p(.) = N(0, 1)."""

    def __init__(self, std: float) -> None:
        super().__init__(CosineSchedule())
        self.conditional, self.unconditional = normal(1.0, std), normal()

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        asked = condition is not None and condition.prompt is not None
        return (self.conditional if asked else self.unconditional)(x_t, t)
