"""The exact density ratio."""

import pytest
import torch
from torch.distributions import Normal

from scoredistill.critics import DiracCritic, ExactCritic, ParticleCritic
from scoredistill.diffusion import CosineSchedule
from scoredistill.ratios import ExactRatio
from scoredistill.teachers import GaussianMixture
from scoredistill.types import Condition, Diffused, Sample

SCHEDULE = CosineSchedule()


def diffused(n: int = 6, condition: Condition | None = None) -> Diffused:
    sample = Sample(torch.randn(n, 1), condition)
    return Diffused.diffuse(sample, torch.linspace(0.1, 0.9, n), torch.randn(n, 1), SCHEDULE)


def test_it_is_the_log_ratio_of_both_densities() -> None:
    p, q = GaussianMixture(torch.tensor([[1.0]]), 0.5), GaussianMixture(torch.tensor([[-0.5]]), 0.8)
    at = diffused()
    a, s = SCHEDULE.alpha(at.t), SCHEDULE.sigma(at.t)
    log_p, log_q = (
        Normal(a * mean, (a**2 * std**2 + s**2).sqrt()).log_prob(at.x_t[:, 0])
        for mean, std in ((1.0, 0.5), (-0.5, 0.8))
    )
    torch.testing.assert_close(ExactRatio()(at, p, ExactCritic(q)), log_p - log_q)


def test_densities_are_conditional() -> None:
    p = GaussianMixture(torch.tensor([[1.0], [-1.0]]), 0.5, labels=torch.tensor([0, 1]))
    at = diffused(condition=Condition(label=torch.tensor([0, 1] * 3)))
    log_r = ExactRatio()(at, p, ParticleCritic(0.2))
    log_q = ParticleCritic(0.2).log_prob(at)
    torch.testing.assert_close(log_r, p.log_prob(at.x_t, at.t, at.condition) - log_q)
    assert (log_r - (p.log_prob(at.x_t, at.t) - log_q)).abs().max() > 1e-3


def test_given_p_and_q_take_precedence_over_the_losss() -> None:
    p, q = GaussianMixture(torch.tensor([[1.0]]), 0.5), ExactCritic(GaussianMixture(torch.tensor([[-0.5]]), 0.8))
    at, wrong = diffused(), GaussianMixture(torch.tensor([[9.0]]), 0.1)
    torch.testing.assert_close(ExactRatio(p, q)(at, wrong, DiracCritic()), ExactRatio()(at, p, q))


def test_a_critic_without_a_density_is_an_error_with_a_remedy() -> None:
    with pytest.raises(TypeError, match=r"ExactRatio\(q=ParticleCritic\(\)\)"):
        ExactRatio()(diffused(), GaussianMixture(torch.zeros(1, 1), 1.0), DiracCritic())
