"""The diffused mixture: every form of covariance against torch.distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.teachers import GaussianMixture

B, K, D = 7, 3, 4
LEVELS = [0.02, 0.3, 1.0, 20.0]  # sigma / alpha


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def setting(ratio: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x_t, alpha, sigma, means and log-weights, with x_t near the components."""
    means = torch.randn(K, D, generator=rng(), dtype=torch.float64)
    alpha = torch.full((B,), 1 / math.hypot(1, ratio), dtype=torch.float64)
    noise = torch.randn(B, D, generator=rng(), dtype=torch.float64)
    x_t = alpha[:, None] * (means[torch.arange(B) % K] + math.hypot(0.5, ratio) * noise)
    return x_t, alpha, ratio * alpha, means, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()


def forms() -> dict[str, tuple[Covariance, Tensor]]:
    """Each form of covariance with its full matrices."""
    eye = torch.eye(D, dtype=torch.float64)
    stds = 0.2 + torch.rand(K, 1, generator=rng(), dtype=torch.float64)
    diagonal = 0.2 + torch.rand(K, D, generator=rng(), dtype=torch.float64)
    factors = torch.randn(K, 2, D, generator=rng(), dtype=torch.float64)
    square = torch.randn(K, D, D, generator=rng(), dtype=torch.float64)
    full = square @ square.transpose(1, 2)
    singular = full.clone()
    singular[0] = torch.outer(square[0, 0], square[0, 0])
    low_rank = factors.transpose(1, 2) @ factors
    return {
        "isotropic": (Covariance(stds), stds[..., None] * eye),
        "diagonal": (Covariance(diagonal), torch.diag_embed(diagonal)),
        "low rank": (Covariance.low_rank(stds, factors), stds[..., None] * eye + low_rank),
        "dependent factors": (
            Covariance.low_rank(stds, factors[:, [0, 0, 1]]),
            stds[..., None] * eye + low_rank + factors[:, :1].transpose(1, 2) @ factors[:, :1],
        ),
        "full": (Covariance.full(full), full),
        "singular": (Covariance.full(singular), singular),
        "Diracs": (Covariance(torch.zeros(K, 1, dtype=torch.float64)), torch.zeros(K, D, D, dtype=torch.float64)),
    }


FORMS = forms()


def by_torch(x_t: Tensor, alpha: Tensor, sigma: Tensor, means: Tensor, log_weights: Tensor, matrices: Tensor):  # type: ignore[no-untyped-def]
    """log p_t and epsilon by torch.distributions and autograd."""
    x = x_t.clone().requires_grad_(True)
    a, s = alpha[0], sigma[0]
    components = MultivariateNormal(a * means, a**2 * matrices + s**2 * torch.eye(D, dtype=torch.float64))
    log_prob = MixtureSameFamily(Categorical(logits=log_weights), components).log_prob(x)
    (score,) = torch.autograd.grad(log_prob.sum(), x)
    return log_prob.detach(), -s * score


def assert_same(ours: MixturePosterior, log_prob: Tensor, epsilon: Tensor) -> None:
    torch.testing.assert_close(ours.log_prob, log_prob, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.epsilon, epsilon, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(ours.responsibilities.sum(1), torch.ones(B), rtol=1e-12, atol=0)


@pytest.mark.parametrize("ratio", LEVELS)
@pytest.mark.parametrize("form", FORMS)
def test_it_equals_the_mixture_of_torch_distributions(form: str, ratio: float) -> None:
    covariance, matrices = FORMS[form]
    where = setting(ratio)
    assert_same(diffused_mixture(*where, covariance), *by_torch(*where, matrices))


@pytest.mark.parametrize("ratio", LEVELS)
def test_one_isotropic_mixture_in_every_form(ratio: float) -> None:
    where = setting(ratio)
    x_t, alpha, sigma, means, log_weights = where
    stds = torch.tensor([[0.04], [0.25], [1.0]])
    shared = diffused_mixture(*where, Covariance(stds))
    others = [
        Covariance(stds.expand(K, D)),
        Covariance.full(stds[..., None] * torch.eye(D)),
        Covariance.low_rank(stds, torch.zeros(K, 2, D)),
        Covariance.low_rank(torch.zeros(K, 1), stds[..., None].sqrt() * torch.eye(D)),
    ]
    for covariance in others:
        assert_same(diffused_mixture(*where, covariance), shared.log_prob, shared.epsilon)
    per_sample = diffused_mixture(x_t, alpha, sigma, means.expand(B, K, D), log_weights, Covariance(stds))
    assert_same(per_sample, shared.log_prob, shared.epsilon)


@pytest.mark.parametrize("form", FORMS)
def test_the_score_is_the_gradient_of_its_own_log_density(form: str) -> None:
    x_t, *rest = setting(0.5)
    x_t.requires_grad_(True)
    posterior = diffused_mixture(x_t, *rest, FORMS[form][0])
    (score,) = torch.autograd.grad(posterior.log_prob.sum(), x_t)
    torch.testing.assert_close(posterior.epsilon, -rest[1][:, None] * score, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", ["isotropic", "diagonal", "low rank"])
def test_a_weight_of_minus_infinity_leaves_a_component_out(form: str) -> None:
    x_t, alpha, sigma, means, log_weights = setting(0.5)
    covariance = FORMS[form][0]
    without = log_weights.clone()
    without[1] = -torch.inf
    left = [0, 2]
    parts = (None if part is None else part[left] for part in (covariance.basis, covariance.spread))
    fewer = Covariance(covariance.variance[left], *parts)
    ours = diffused_mixture(x_t, alpha, sigma, means, without, covariance)
    theirs = diffused_mixture(x_t, alpha, sigma, means[left], log_weights[left], fewer)
    assert_same(ours, theirs.log_prob, theirs.epsilon)
    assert torch.equal(ours.responsibilities[:, 1], torch.zeros(B))


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_it_stays_finite_far_away_and_moves_with_its_means(ratio: float, shift: float) -> None:
    x_t, alpha, sigma, means, log_weights = setting(ratio)
    far = diffused_mixture(x_t + 1e3, alpha, sigma, means, log_weights, FORMS["isotropic"][0])
    assert bool(torch.isfinite(far.log_prob).all() and torch.isfinite(far.epsilon).all())
    here = diffused_mixture(x_t, alpha, sigma, means, log_weights, FORMS["isotropic"][0])
    moved = diffused_mixture(
        x_t + alpha[:, None] * shift, alpha, sigma, means + shift, log_weights, FORMS["isotropic"][0]
    )
    # ||x||^2 - 2 x.mu + ||mu||^2 cancels: what is left of float64 grows with (shift / sigma)^2.
    torch.testing.assert_close(moved.epsilon, here.epsilon, rtol=1e-8, atol=1e-8)


def test_invalid_covariances_are_refused() -> None:
    with pytest.raises(ValueError, match="positive semi-definite; an eigenvalue is -1"):
        Covariance.full(torch.diag(torch.tensor([1.0, -1.0]))[None])


@pytest.mark.parametrize("spread", [None, 0.5])
def test_autocast_does_not_affect_it(spread: float | None) -> None:
    means, factors = torch.randn(3, 4).float(), None if spread is None else spread * torch.randn(3, 2, 4).float()
    teacher = GaussianMixture(means, 0.3, factors=factors).float()
    x_t, t = torch.randn(5, 4).float(), torch.linspace(0.1, 0.9, 5).float()
    exact = teacher.posterior(x_t, t)
    with torch.autocast("cpu", torch.bfloat16):
        found = teacher.posterior(x_t, t)
    assert torch.equal(found.epsilon, exact.epsilon)
    assert torch.equal(found.log_prob, exact.log_prob)
