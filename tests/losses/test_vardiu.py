"""The variational bound, with exact and learned posteriors."""

import pytest
import torch
from laws.quadrature import ALPHA, SIGMA, normal, normal_nodes, one_dimension, time_at
from laws.zoo import mlp
from torch import Tensor, nn

from scoredistill import Condition, Distiller, Sample
from scoredistill.critics import ExactCritic, ParticleCritic
from scoredistill.diffusion import UniformWeight
from scoredistill.generators import ImageParticles
from scoredistill.losses import VSD, GaussianPosterior, ParticlePosterior, VarDiU
from scoredistill.testing import ReferenceTeacher

X = torch.randn(5, 2, dtype=torch.float64)


def test_the_particles_posterior_is_the_gradient_of_its_log() -> None:
    """sigma grad log p(i | x_t), by differentiating the softmax over particles."""
    teacher = ReferenceTeacher()
    distiller = Distiller(ImageParticles(X), teacher, VarDiU(ParticlePosterior()))
    t, epsilon = torch.linspace(0.3, 0.9, 5), torch.randn(5, 2)
    diffused = distiller.diffuse(Sample(X, Condition("left")), distiller.timesteps, t, epsilon)
    alpha, sigma = (each[:, None] for each in teacher.schedule(t))
    x_t = diffused.x_t.clone().requires_grad_()
    log_p = (-((x_t[:, None] - alpha[:, None] * X).square().sum(2)) / (2 * sigma**2)).log_softmax(1).diagonal()
    (slope,) = torch.autograd.grad(log_p.sum(), x_t)
    torch.testing.assert_close(distiller.loss.posterior(diffused), sigma * slope, rtol=1e-9, atol=1e-10)


def test_with_the_exact_posterior_of_particles_it_is_vsd_in_expectation() -> None:
    """g differs from VSD's by the noise alone, whose mean is zero."""
    x, epsilon, t = torch.randn(5, 2), torch.randn(5, 2), torch.full((5,), 0.6)
    ours, vsd = (
        Distiller(ImageParticles(x), ReferenceTeacher(), loss).gradient(x, t=t, epsilon=epsilon)
        for loss in (VarDiU(ParticlePosterior(), UniformWeight()), VSD(ParticleCritic(), UniformWeight()))
    )
    torch.testing.assert_close(ours - vsd, epsilon, rtol=1e-9, atol=1e-10)


class Linear(nn.Module):
    """E[z | x_t] of x = m + tau z, N(0, 1): the network of the exact posterior at one noise level."""

    def __init__(self, m: float, tau: float) -> None:
        super().__init__()
        self.m, self.tau, self.u = m, tau, ALPHA**2 * tau**2 + SIGMA**2

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        return ALPHA * self.tau * (x - ALPHA * self.m) / self.u


def test_with_the_exact_posterior_of_a_gaussian_it_is_the_gradient_of_reverse_kl() -> None:
    """(d/dm, d/dtau) by quadrature over z and epsilon: those of VSD with the exact critic, law 7."""
    m, tau = 2.0, 0.5
    posterior = GaussianPosterior(mlp((1,)), prediction="x0")
    network = Linear(m, tau)
    posterior.denoiser.network = network  # type: ignore[assignment]
    nn.init.constant_(posterior.log_s, 0.0)
    posterior.log_s.data[0] = 0.5 * torch.tensor(SIGMA**2 / network.u).log()  # Var(z | x_t) = sigma^2 / u
    (z, w), (epsilon, v) = normal_nodes(40), normal_nodes(40)
    z, epsilon = z[:, None].expand(40, 40).reshape(-1, 1), epsilon.repeat(40)[:, None]
    weight = (w[:, None] * v).reshape(-1)
    found = []
    for loss in (VarDiU(posterior, UniformWeight()), VSD(ExactCritic(normal(m, tau)), UniformWeight())):
        distiller = one_dimension(loss, normal())
        step = distiller.evaluate(Sample(m + tau * z, noise=z), t=time_at(ALPHA), epsilon=epsilon)
        g = step.gradient.g[:, 0] * ALPHA / SIGMA
        found.append([float((weight * g).sum()), float((weight * g * z[:, 0]).sum())])
    assert found[1] == pytest.approx([1.28, -0.295385], abs=5e-7)
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_the_learned_posterior_is_trained_by_maximum_likelihood() -> None:
    posterior = GaussianPosterior(mlp())
    distiller = Distiller(ImageParticles(X), ReferenceTeacher(), VarDiU(posterior))
    assert distiller.critics == [posterior]
    sample = Sample(X, noise=torch.randn(5, 2))
    diffused = distiller.diffuse(sample, distiller.timesteps, 0.5, torch.randn(5, 2))
    m = posterior.denoiser(diffused.x_t, diffused.t, None, diffused.schedule).x0
    expected = 0.5 * (sample.noise - m).square().mean(1)  # s = 1 at the start
    torch.testing.assert_close(distiller.critic_error(diffused), expected)


def test_a_gaussian_posterior_needs_the_generators_noise() -> None:
    distiller = Distiller(ImageParticles(X), ReferenceTeacher(), VarDiU(GaussianPosterior(mlp())))
    with pytest.raises(ValueError, match="needs a generator from noise"):
        distiller.gradient(X, t=0.5, epsilon=X)
