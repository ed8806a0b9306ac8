"""Laws 3-8 and 19: the expectation of the one gradient."""

import math

import pytest
import torch
from scipy.optimize import brentq, root
from torch import Tensor

from laws.quadrature import (
    ALPHA,
    SIGMA,
    Prompted,
    expected_gradient,
    moments,
    normal,
    normal_nodes,
    one_dimension,
    time_at,
)
from laws.zoo import DIVERGENCES, name
from scoredistill import Condition
from scoredistill.critics import DiracCritic, ExactCritic
from scoredistill.diffusion import CFG, DivergenceWeight, Guidance, UniformWeight
from scoredistill.divergences import (
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    Pearson,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
)
from scoredistill.losses import CSD, DDS, SDS, VSD, FDistill, ScoreDistillation
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.types import Diffused


def test_law_3_sds_is_vsd_is_f_distill() -> None:
    teacher = GaussianMixture(torch.randn(5, 3), 0.3)
    x, epsilon, t = torch.randn(64, 3), torch.randn(64, 3), torch.rand(64)
    losses = [SDS(), VSD(DiracCritic()), FDistill(ReverseKL(), DiracCritic())]
    first, *others = (one_dimension(loss, teacher).gradient(x, t=t, epsilon=epsilon) for loss in losses)
    assert first.abs().min() > 0
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("x", [-1.0, 0.5, 3.0])
def test_law_4_sds_mean_and_variance(x: float) -> None:
    mu = 0.25
    mean, variance = moments(one_dimension(SDS(UniformWeight()), normal(mu)), x)
    assert mean == pytest.approx(0.48 * (x - mu), abs=1e-12)
    assert variance == pytest.approx(0.4096, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.99])
def test_law_4_fixed_point_is_the_mode_at_every_time(alpha: float) -> None:
    z, w = normal_nodes(40)
    t = torch.full((40,), time_at(alpha))
    distiller = one_dimension(SDS(), normal(1.5, 0.4))

    def drift(x: float) -> float:
        return float((w * distiller.gradient(torch.full((40, 1), x), t=t, epsilon=z[:, None])[:, 0]).sum())

    assert brentq(drift, -5, 5, xtol=1e-13) == pytest.approx(1.5, abs=1e-10)


class ScaledNoise(ScoreDistillation):
    """B = c epsilon: SDS with a control variate of another size."""

    def __init__(self, c: float) -> None:
        super().__init__(UniformWeight())
        self.c = c

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return self.c * diffused.epsilon


@pytest.mark.parametrize(("c", "expected"), [(0.0, 0.1296), (1.0, 0.4096), (0.36, 0.0)])
def test_law_5_control_variate(c: float, expected: float) -> None:
    assert moments(one_dimension(ScaledNoise(c), normal()), 0.7)[1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("std", "scale", "expected"), [(1.0, 1.0, 1.0), (1.0, 7.5, 7.5), (1.0, 100.0, 100.0), (0.5, 7.5, 1.82039),
                                   (0.5, 100.0, 2.06101)]
)  # fmt: skip
def test_law_6_guidance_saturates_sds(std: float, scale: float, expected: float) -> None:
    distiller = one_dimension(SDS(), Prompted(std), CFG(scale))
    fixed = brentq(lambda x: moments(distiller, x, Condition(prompt="y"))[0], -200, 200, xtol=1e-13)
    assert fixed == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("scale", [0.0, 7.5, 100.0])
def test_sds_under_guidance_is_sds_and_csd(scale: float) -> None:
    teacher = Prompted(0.5)
    rows = {"x": torch.randn(64, 1), "t": torch.rand(64), "epsilon": torch.randn(64, 1), "condition": Condition("y")}
    guided, plain = (one_dimension(SDS(), teacher, CFG(s)).gradient(**rows) for s in (scale, 1.0))
    direction, scaled = (one_dimension(CSD(), teacher, CFG(s)).gradient(**rows) for s in (1.0, scale))
    assert direction.abs().min() > 0
    torch.testing.assert_close(guided, plain + (scale - 1) * direction, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(scaled, scale * direction, rtol=1e-11, atol=1e-12)


def test_csd_descends_the_teachers_classifier() -> None:
    """Its noise-free fixed point is SDS' under unbounded guidance, (x - 1)/v = x with v = alpha^2 S^2 + sigma^2."""
    x = torch.linspace(-2, 2, 9)[:, None].requires_grad_()
    t = torch.full((9,), time_at(ALPHA))
    teacher = Prompted(0.5)
    x_t = ALPHA * x
    log_p = [part.log_prob(x_t, t) for part in (teacher.conditional, teacher.unconditional)]
    (slope,) = torch.autograd.grad((log_p[0] - log_p[1]).sum(), x)
    distiller = one_dimension(CSD(UniformWeight()), teacher)
    asked = Condition(prompt="y")
    g = distiller.gradient(x.detach(), t=t, epsilon=torch.zeros(9, 1), condition=asked)
    torch.testing.assert_close(g, -SIGMA / ALPHA * slope, rtol=1e-11, atol=1e-12)
    fixed = brentq(lambda x: moments(distiller, x, asked)[0], -200, 200, xtol=1e-13)
    assert fixed == pytest.approx(1 / (1 - ALPHA**2 * 0.5**2 - SIGMA**2), abs=1e-10)


@pytest.mark.parametrize("x", [-1.0, 0.5, 3.0])
def test_law_14_dds_with_equal_variances_has_none(x: float) -> None:
    """g = sigma alpha (x - x_ref - mu_y + mu_ref)/v whatever the noise; SDS' varies by .4096 in the same place."""
    mu_ref, mu_y, x_ref = -1.0, 0.5, -0.7
    teacher = GaussianMixture(torch.tensor([[mu_ref], [mu_y]]), 1.0, labels=torch.tensor([0, 1]))
    distiller = one_dimension(DDS(torch.tensor([[x_ref]]), label=0, weight=UniformWeight()), teacher)
    asked = Condition(label=torch.ones(40, dtype=torch.long))
    mean, variance = moments(distiller, x, asked)
    assert mean == pytest.approx(0.48 * (x - x_ref - mu_y + mu_ref), abs=1e-12)
    assert variance == pytest.approx(0, abs=1e-24)
    assert moments(one_dimension(SDS(UniformWeight()), teacher), x, asked)[1] == pytest.approx(0.4096, abs=1e-12)
    fixed = brentq(lambda x: moments(distiller, x, asked)[0], -50, 50, xtol=1e-13)
    assert fixed == pytest.approx(x_ref + mu_y - mu_ref, abs=1e-10)


def test_law_7_vsd_is_the_gradient_of_reverse_kl() -> None:
    assert expected_gradient(ReverseKL(), normal(), 2.0, 0.5) == pytest.approx((1.28, -0.295385), abs=5e-7)


def test_law_7_critic_equal_to_teacher_gives_zero() -> None:
    teacher = GaussianMixture(torch.randn(4, 2), 0.5)
    distiller = one_dimension(VSD(ExactCritic(teacher)), teacher)
    g = distiller.gradient(torch.randn(32, 2), t=torch.rand(32), epsilon=torch.randn(32, 2))
    assert torch.equal(g, torch.zeros(32, 2))


LAW_8 = [
    (ReverseKL(), (0.64, -0.07974)),
    (ForwardKL(), (0.72860, -0.56854)),
    (JensenShannon(), (0.28966, -0.11732)),
    (SoftenedReverseKL(), (0.35034, 0.03758)),
    (SquaredHellinger(), (0.15628, -0.06739)),
    (Jeffreys(), (1.36860, -0.64828)),
    (Pearson(), (3.97831, -6.55144)),
]


@pytest.mark.parametrize(("divergence", "expected"), LAW_8, ids=[name(d) for d, _ in LAW_8])
def test_law_8_f_distill_is_the_gradient_of_the_divergence(
    divergence: Divergence, expected: tuple[float, float]
) -> None:
    assert expected_gradient(divergence, normal(), 1.0, 0.9) == pytest.approx(expected, abs=5e-6)


def diffused_divergence(divergence: Divergence, m: Tensor, tau: Tensor) -> Tensor:
    """D_f(p_t || q_t) = E_q[f(r)] by quadrature of its definition, differentiable in (m, tau)."""
    x = torch.linspace(-9, 9, 20001)
    p = torch.distributions.Normal(0.0, 1.0)
    q = torch.distributions.Normal(ALPHA * m, (ALPHA**2 * tau**2 + SIGMA**2).sqrt())
    q_x = q.log_prob(x).exp()
    return torch.trapezoid(q_x * divergence.f((p.log_prob(x) - q.log_prob(x)).exp()), x)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=name)
def test_law_8_against_autograd_of_the_definition(divergence: Divergence) -> None:
    m, tau = torch.tensor(0.4, requires_grad=True), torch.tensor(0.9, requires_grad=True)
    expected = torch.autograd.grad(diffused_divergence(divergence, m, tau), (m, tau))
    assert expected_gradient(divergence, normal(), 0.4, 0.9) == pytest.approx([float(e) for e in expected], abs=1e-8)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=name)
def test_law_19_the_target_is_the_only_stationary_point(divergence: Divergence) -> None:
    assert expected_gradient(divergence, normal(), 0.0, 1.0) == pytest.approx((0, 0), abs=1e-12)
    for m, tau in [(0.6, 0.8), (-0.5, 1.2), (0.9, 1.1), (0.0, 0.75), (-0.8, 0.9)]:
        away = math.hypot(*expected_gradient(divergence, normal(), m, tau))
        found = root(lambda v: expected_gradient(divergence, normal(), v[0], abs(v[1])), (m, tau), tol=1e-12)
        assert away > 1e-2
        assert found.success
        assert (found.x[0], abs(found.x[1])) == pytest.approx((0, 1), abs=1e-7)


EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.25], dtype=torch.float64)


def mean_gradient(w: Tensor, teacher: GaussianMixture) -> Tensor:
    """d/dW of KL(q_t || p_t) for x = W z, z ~ N(0, I): E[(alpha / sigma) g z^T], where g is linear in x_t.

    g at x_t = e_j is column j of its matrix M, and E[x_t z^T] = alpha W.
    """
    q = GaussianMixture(torch.zeros(1, 4), factors=w.T[None])
    loss = VSD(ExactCritic(q), DivergenceWeight())
    columns = one_dimension(loss, teacher).gradient(torch.eye(4) / ALPHA, t=time_at(ALPHA), epsilon=torch.zeros(4, 4))
    return columns.T @ (ALPHA * w)


@pytest.mark.parametrize(("k", "left"), [(1, 0.58877), (2, 0.22084), (3, 0.03002), (4, 0.0)])
def test_law_17_the_best_generator_of_rank_k_spans_the_top_k(k: int, left: float) -> None:
    """Gradient descent from a random start, under a teacher N(0, diag(4, 2, 1, .25))."""
    teacher = GaussianMixture(torch.zeros(1, 4), EIGENVALUES.sqrt()[None])
    w = torch.randn(4, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(600):
        w = w - 0.5 * mean_gradient(w, teacher)
    covariance = torch.diag(EIGENVALUES * (torch.arange(4) < k))
    torch.testing.assert_close(w @ w.T, covariance, rtol=1e-5, atol=1e-5)
    p, q = (ALPHA**2 * each + SIGMA**2 * torch.eye(4) for each in (torch.diag(EIGENVALUES), w @ w.T))
    kl = 0.5 * (torch.trace(torch.linalg.solve(p, q)) - 4 + torch.logdet(p) - torch.logdet(q))
    assert float(kl) == pytest.approx(left, abs=5e-6)
