"""Laws 1, 9, 10 and 12: divergences, their variance, and what they cover."""

import math

import pytest
import torch
from scipy.optimize import brentq, minimize, root
from torch import Tensor

from laws.quadrature import even_nodes, expected_gradient, normal, normal_nodes, time_at
from laws.zoo import DIVERGENCES, name
from scoredistill.critics import ExactCritic
from scoredistill.divergences import (
    Alpha,
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
)
from scoredistill.ratios import BatchMeanNormalizer, ExactRatio
from scoredistill.teachers import GaussianMixture
from scoredistill.testing import check_divergence
from scoredistill.types import Diffused, Sample


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=name)
def test_law_1_h_is_r_squared_times_the_second_derivative(divergence: Divergence) -> None:
    check_divergence(divergence)
    assert (divergence.h(torch.logspace(-3, 3, 61)) > 0).all()


@pytest.mark.parametrize("divergence", [JensenShannon(), SoftenedReverseKL()], ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_weights_stay_finite_for_extreme_logits(divergence: Divergence, dtype: torch.dtype) -> None:
    h = divergence.h_from_log(torch.tensor([-100.0, 100.0], dtype=dtype))
    assert bool(torch.isfinite(h).all())
    assert sorted(h.tolist()) == pytest.approx([math.exp(-100), 1.0])


@pytest.mark.parametrize(("alpha", "proper"), [(0, "ReverseKL"), (1, "ForwardKL")])
def test_alpha_names_the_class_of_its_limits(alpha: float, proper: str) -> None:
    with pytest.raises(ValueError, match=proper):
        Alpha(alpha)


def log_ratio_nodes(gap: float) -> tuple[Tensor, Tensor]:
    """log r at quadrature nodes of q = N(gap, 1) against p = N(0, 1), undiffused, by the exact ratio itself."""
    z, w = normal_nodes(120)
    p, q = normal(), ExactCritic(normal(gap))
    t = torch.zeros_like(z)
    diffused = Diffused.diffuse(Sample(gap + z[:, None]), t, torch.zeros(120, 1), p.schedule)
    return ExactRatio()(diffused, p, q), w


def test_law_9_the_mean_of_r_is_one() -> None:
    log_r, w = log_ratio_nodes(1.0)
    assert float((w * log_r.exp()).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_law_9_normalized_alpha_is_renyi(alpha: float) -> None:
    m, tau = torch.tensor(1.0, requires_grad=True), torch.tensor(1.1, requires_grad=True)
    x = torch.linspace(-9, 9, 20001)
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.8 * m, (0.64 * tau**2 + 0.36).sqrt())
    moment = torch.trapezoid(torch.exp(alpha * p.log_prob(x) + (1 - alpha) * q.log_prob(x)), x)
    renyi = [float(d) for d in torch.autograd.grad(moment.log() / (alpha - 1), (m, tau))]

    # Nodes of equal weight, so that the batch mean of h is its expectation: midpoints of equal shares of N(0, 1).
    z = torch.special.ndtri((torch.arange(400_000) + 0.5) / 400_000)
    nodes = (z, torch.full_like(z, 1 / len(z)))

    def gradient(normalizer: BatchMeanNormalizer | None) -> tuple[float, float]:
        return expected_gradient(Alpha(alpha), normal(), 1.0, 1.1, 0.8, normalizer, nodes)

    assert [alpha * g for g in gradient(BatchMeanNormalizer())] == pytest.approx(renyi, rel=1e-4)
    assert gradient(None) != pytest.approx([r / alpha for r in renyi], rel=2e-2)  # the alpha divergence's is another


LAW_10 = [
    (ReverseKL(), 0.0),
    (ForwardKL(), math.e - 1),
    (JensenShannon(), 0.256),
    (SoftenedReverseKL(), 0.112),
    (Jeffreys(), 0.430),
    (SquaredHellinger(), 0.284),
]


def relative_variance(divergence: Divergence, gap: float) -> float:
    log_r, w = log_ratio_nodes(gap)
    h = divergence.h_from_log(log_r)
    mean = (w * h).sum()
    return float((w * (h - mean) ** 2).sum() / mean**2)


@pytest.mark.parametrize(("divergence", "expected"), LAW_10, ids=[name(d) for d, _ in LAW_10])
def test_law_10_variance_of_h(divergence: Divergence, expected: float) -> None:
    assert relative_variance(divergence, 1.0) == pytest.approx(expected, abs=5e-4)


def test_law_10_forward_kl_at_gap_two() -> None:
    assert relative_variance(ForwardKL(), 2.0) == pytest.approx(math.exp(4) - 1, rel=1e-6)


BIMODAL = GaussianMixture(torch.tensor([[-2.0], [2.0]]), 0.5)
LAW_12 = [
    (ReverseKL(), (2, 0.50), 1.0),
    (JensenShannon(), (0, 2.043), 1.0),
    (SquaredHellinger(), (0, 2.007), 1.0),
    (Jeffreys(), (0, 1.781), 1.0),
    (ForwardKL(), (0, 2.0616), 1.0),
    (ReverseKL(), (0, 1.832), 0.8),
    (JensenShannon(), (0, 2.021), 0.8),
    (SquaredHellinger(), (0, 1.978), 0.8),
    (Jeffreys(), (0, 1.891), 0.8),
    (ForwardKL(), (0, 2.0616), 0.8),
]


@pytest.mark.parametrize(("divergence", "best", "alpha"), LAW_12, ids=[f"{name(d)}-{a}" for d, _, a in LAW_12])
def test_law_12_mode_coverage(divergence: Divergence, best: tuple[float, float], alpha: float) -> None:
    # "Undiffused" is the limit of small sigma: the gradient divides by it, so it is taken at alpha = 1 - 5e-9.
    alpha = min(alpha, 1 - 5e-9)
    start = (best[0] + 0.05, best[1] + 0.05)
    found = root(lambda v: expected_gradient(divergence, BIMODAL, v[0], v[1], alpha), start, tol=1e-10)
    assert found.success
    assert found.x.tolist() == pytest.approx(best, abs=6e-4 if best[1] != 0.5 else 2e-3)


def reverse_kl(m: float, tau: float, alpha: float) -> float:
    """KL(q_t || p_t), by quadrature."""
    z, w = even_nodes()
    t = torch.full_like(z, time_at(alpha))
    sigma = math.sqrt(1 - alpha**2)
    x_t = (alpha * m + math.sqrt(alpha**2 * tau**2 + sigma**2) * z)[:, None]
    return float((w * (normal(m, tau).log_prob(x_t, t) - BIMODAL.log_prob(x_t, t))).sum())


def test_law_12_reverse_kl_flips_from_one_mode_to_both() -> None:
    def advantage_of_one_mode(alpha: float) -> float:
        one, both = (
            minimize(lambda v: reverse_kl(v[0], v[1], alpha), start, method="Nelder-Mead",
                     options={"xatol": 1e-8, "fatol": 1e-13}).fun
            for start in [(2.0, 0.5), (0.0, 1.9)]
        )  # fmt: skip
        return both - one

    assert brentq(advantage_of_one_mode, 0.87, 0.91, xtol=1e-6) == pytest.approx(0.8908, abs=6e-5)
