"""Rényi's divergence and Bregman's ratio matching."""

import pytest
import torch
from laws.quadrature import ALPHA, SIGMA, even_nodes, normal, one_dimension, time_at
from torch import Tensor

from scoredistill import Distiller
from scoredistill.critics import ExactCritic
from scoredistill.diffusion import DivergenceWeight
from scoredistill.divergences import Alpha, BregmanPower, ForwardKL, Neyman
from scoredistill.generators import ImageParticles
from scoredistill.losses import BregmanDistill, FDistill, RenyiDistill
from scoredistill.ratios import ExactRatio
from scoredistill.testing import ReferenceTeacher

M, TAU = 0.5, 0.9
U = ALPHA**2 * TAU**2 + SIGMA**2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_renyi_is_the_gradient_of_its_divergence(alpha: float) -> None:
    """d/dm of log E_q[r^a] / (a - 1) for two Gaussians, in closed form by autograd of the quadrature.

    The batch holds quantiles of q, so that its mean is E_q; alpha = 1 is the limit, forward KL.
    """
    m = torch.tensor(M, requires_grad=True)
    z, _ = even_nodes()
    x_t = (ALPHA * M + U**0.5 * z).detach()
    p = -0.5 * x_t.square()
    q = -0.5 * (x_t - ALPHA * m).square() / U - 0.5 * torch.tensor(U).log()
    density = torch.softmax(q.detach(), 0)
    if alpha == 1:
        value = (torch.softmax(p, 0) * (p - q)).sum()
    else:
        integral = (density * (alpha * p + (1 - alpha) * q - q.detach()).exp()).sum()
        value = integral.log() / (alpha - 1)
    (exact,) = torch.autograd.grad(value, m)
    n = 40001
    even = torch.erfinv((torch.arange(n) + 0.5) / n * 2 - 1) * 2**0.5
    loss = RenyiDistill(alpha, ExactCritic(normal(M, TAU)), ExactRatio(), weight=DivergenceWeight())
    rows = (ALPHA * M + U**0.5 * even)[:, None] / ALPHA
    g = one_dimension(loss, normal()).gradient(rows, t=time_at(ALPHA), epsilon=torch.zeros(n, 1))
    # Quantiles of 40,001 rows leave out what lies beyond 4.2 standard deviations, which r^2 weighs most.
    assert float(g.mean()) == pytest.approx(float(exact), rel=2e-3)


def gradient(loss: FDistill) -> Tensor:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Distiller(ImageParticles(x), ReferenceTeacher(), loss).gradient(x, t=0.5, epsilon=x.flip(0))


def test_renyi_is_the_alpha_family_over_its_batch_mean() -> None:
    critic = ExactCritic(ReferenceTeacher())
    for alpha, divergence in ((0.5, Alpha(0.5)), (1.0, ForwardKL())):
        renyi, plain = RenyiDistill(alpha, critic, ExactRatio()), FDistill(divergence, critic, ExactRatio())
        assert isinstance(renyi.divergence, type(plain.divergence))
    with pytest.raises(ValueError, match="alpha must be above 0"):
        RenyiDistill(0.0, critic, ExactRatio())


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_bregman_is_f_distill_with_the_conjugate(power: float) -> None:
    """rho phi''(rho) with rho = 1 / r and phi(rho) = (rho^(1 + power) - rho) / power; at power 1 it is Neyman's."""
    log_r = torch.linspace(-2, 2, 9)
    rho = (-log_r).exp().requires_grad_()
    phi = (rho ** (1 + power) - rho) / power
    (first,) = torch.autograd.grad(phi.sum(), rho, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), rho)
    torch.testing.assert_close(BregmanPower(power).h_from_log(log_r), (rho * second).detach())
    critic = ExactCritic(normal())
    ours = BregmanDistill(power, critic, ExactRatio())
    assert isinstance(ours.divergence, BregmanPower)
    if power == 1:
        torch.testing.assert_close(BregmanPower(1.0).h_from_log(log_r), Neyman().h_from_log(log_r))
