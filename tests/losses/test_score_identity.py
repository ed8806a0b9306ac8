"""Scalars through teacher and critic against quadrature, autograd of the divergences and finite differences."""

import pytest
import torch
from laws.quadrature import ALPHA, SIGMA, even_nodes, normal, normal_nodes, one_dimension, time_at
from laws.zoo import mlp, mlp_critic
from torch import Tensor, nn

from scoredistill import Distiller, Sample
from scoredistill.critics import ExactCritic
from scoredistill.diffusion import FlowSchedule, Schedule, TimeWeight, UniformWeight
from scoredistill.divergences import Divergence, ForwardKL, JensenShannon, Pearson, ReverseKL
from scoredistill.generators import ImageParticles
from scoredistill.losses import SIM, ScalarDistillation, SiD, SiDA, UniInstruct, WithGAN
from scoredistill.losses.objective import Reweighting
from scoredistill.ratios import DiscriminatorRatio, ExactRatio
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.types import Diffused


class InScores(TimeWeight):
    """k^2, k = alpha / sigma^2: differences of clean predictions become differences of scores."""

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        alpha, sigma = schedule(t)
        return (alpha / sigma**2) ** 2


def expected(loss: ScalarDistillation, m: float, tau: float) -> tuple[float, float]:
    """(d/dm, d/dtau) of E[l] for q = N(m, tau^2) against N(0, 1), by quadrature over z and epsilon: x = m + tau z."""
    (z, w), (epsilon, v) = normal_nodes(60), normal_nodes(60)
    x = (m + tau * z)[:, None].expand(60, 60).reshape(-1, 1)
    g = one_dimension(loss, normal()).gradient(x, t=time_at(ALPHA), epsilon=epsilon.repeat(60)[:, None])
    g = g.reshape(60, 60) @ v
    return float((w * g).sum()), float((w * g * z).sum())


def weighted_fisher(divergence: Divergence, m: Tensor, tau: Tensor) -> Tensor:
    """E_q[h(r) |s_p - s_q|^2] by quadrature of its definition, differentiable in (m, tau)."""
    z, w = even_nodes()
    u = (ALPHA * tau).square() + SIGMA**2
    x_t = ALPHA * m + u.sqrt() * z
    log_r = -0.5 * x_t.square() + 0.5 * z.square() + 0.5 * u.log()
    return (w * divergence.h_from_log(log_r) * (-x_t + z / u.sqrt()).square()).sum()


DIVERGENCES = [ReverseKL(), ForwardKL(), JensenShannon(), Pearson()]


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda d: type(d).__name__)
def test_uni_instruct_is_the_gradient_of_the_expanded_divergence(divergence: Divergence) -> None:
    m, tau = (torch.tensor(value, requires_grad=True) for value in (0.6, 0.8))
    exact = torch.autograd.grad(weighted_fisher(divergence, m, tau), (m, tau))
    loss = UniInstruct(divergence, ExactCritic(normal(0.6, 0.8)), ExactRatio(), normalize=False, weight=InScores())
    assert expected(loss, 0.6, 0.8) == pytest.approx([float(each) for each in exact], rel=2e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda d: type(d).__name__)
def test_the_published_gradient_is_exact_where_dx_does_not_depend_on_z(divergence: Divergence) -> None:
    m, tau = (torch.tensor(value, requires_grad=True) for value in (0.6, 0.8))
    exact = [float(each) for each in torch.autograd.grad(weighted_fisher(divergence, m, tau), (m, tau))]
    critic, weight = ExactCritic(normal(0.6, 0.8)), InScores()
    found = expected(UniInstruct(divergence, critic, ExactRatio(), (), False, False, weight), 0.6, 0.8)
    assert found[0] == pytest.approx(exact[0], rel=2e-6)
    # Far below the difference, a third, that the test tells apart from rounding.
    assert (found[1] == pytest.approx(exact[1], rel=1e-3)) == divergence.constant


def test_the_fisher_gradient_of_sid_and_its_half_of_sim() -> None:
    """At m = 2, tau = .5: the Fisher divergence has d/dm = 2.56, with the distribution of x_t fixed 4.92308."""
    critic = ExactCritic(normal(2.0, 0.5))
    square = expected(SIM(critic, "square", weight=InScores()), 2.0, 0.5)
    assert square[0] == pytest.approx(4.92308, abs=5e-6)
    sid = {a: expected(SiD(critic, a, normalize=False, weight=InScores()), 2.0, 0.5) for a in (0.5, 1.0)}
    assert sid[1.0] == pytest.approx([each / 2 for each in square], rel=1e-9)
    m, tau = (torch.tensor(value, requires_grad=True) for value in (2.0, 0.5))
    fisher = torch.autograd.grad(weighted_fisher(ReverseKL(), m, tau), (m, tau))
    assert float(fisher[0]) == pytest.approx(2.56)
    assert sid[0.5] == pytest.approx([float(each) / 2 for each in fisher], rel=1e-9)


def scalars(loss: ScalarDistillation, x: Tensor, t: float, epsilon: Tensor, teacher: GaussianMixture) -> Tensor:
    """l at each sample."""
    at = Diffused.diffuse(Sample(x), t, epsilon, teacher.schedule)
    return loss.scalar(at, teacher(at.x_t, at.t), loss.critic(at), Reweighting(torch.ones_like(at.t)))


LOSSES = {
    "SiD": lambda: SiD(mlp_critic(), normalize=False),
    "SIM": lambda: SIM(mlp_critic()),
    "SIM-square": lambda: SIM(mlp_critic(), "square"),
    "UniInstruct": lambda: UniInstruct(ReverseKL(), mlp_critic(), normalize=False),
}


@pytest.mark.parametrize("key", LOSSES)
def test_the_gradient_against_finite_differences_through_both_networks(key: str) -> None:
    loss, teacher = LOSSES[key](), NetworkTeacher(mlp(), prediction="v", schedule=FlowSchedule())
    for parameter in loss.parameters():
        nn.init.normal_(parameter, std=0.4)
    x, epsilon = torch.randn(3, 2), torch.randn(3, 2)
    distiller = Distiller(ImageParticles(x), teacher, loss)
    g = distiller.gradient(x, t=0.4, epsilon=epsilon)
    numeric, step = torch.zeros_like(x), 1e-5
    for i in range(2):
        shift = torch.zeros(3, 2)
        shift[:, i] = step
        ends = [scalars(loss, x + sign * shift, 0.4, epsilon, teacher) for sign in (1, -1)]  # type: ignore[arg-type]
        numeric[:, i] = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(g, numeric.detach(), rtol=1e-6, atol=1e-8)


def test_the_denominator_has_no_gradient() -> None:
    critic, teacher = ExactCritic(normal(1.0, 0.7)), normal()
    x, epsilon = torch.randn(4, 1), torch.randn(4, 1)
    plain, divided = (
        one_dimension(SiD(critic, normalize=each), teacher).gradient(x, t=0.5, epsilon=epsilon)
        for each in (False, True)
    )
    at = Diffused.diffuse(Sample(x), 0.5, epsilon, teacher.schedule)
    torch.testing.assert_close(divided, plain / (x - teacher(at.x_t, at.t).x0).abs())


def test_sida_is_sid_with_a_discriminator_on_the_critics_features() -> None:
    loss = SiDA(mlp_critic())
    assert isinstance(loss, WithGAN)
    assert isinstance(loss.loss, SiD)
    assert isinstance(loss.discriminator, DiscriminatorRatio)
    assert (loss.loss.alpha, loss.discriminator.source) == (1.0, "critic")
    assert UniInstruct(ReverseKL(), mlp_critic()).weight(torch.ones(1), FlowSchedule()) == UniformWeight()(
        torch.ones(1), FlowSchedule()
    )


def test_uni_instruct_needs_a_ratio() -> None:
    with pytest.raises(ValueError, match="UniInstruct with JensenShannon needs a density ratio"):
        UniInstruct(JensenShannon(), mlp_critic())
