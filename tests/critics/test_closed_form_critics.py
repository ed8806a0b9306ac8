"""Critics in closed form: a point mass, a set of particles, a known distribution."""

from dataclasses import replace

import pytest
import torch
from laws.zoo import SCHEDULES, name
from torch import Tensor

from scoredistill.critics import Critic, DiracCritic, ExactCritic, ParticleCritic, TrainedPart
from scoredistill.diffusion import CosineSchedule, FlowSchedule, Schedule
from scoredistill.diffusion.mixture import MixturePosterior, diffused_mixture
from scoredistill.teachers import Empirical, GaussianMixture
from scoredistill.types import Diffused, Sample

SCHEDULE = CosineSchedule()


def diffused(sample: Sample, schedule: Schedule = SCHEDULE) -> Diffused:
    n = len(sample.x)
    epsilon = torch.randn(sample.x.shape, generator=torch.Generator().manual_seed(7))
    return Diffused.diffuse(sample, torch.linspace(0.1, 0.9, n), epsilon, schedule)


def ask(critic: Critic, at: Diffused, sample: Sample | None = None) -> Tensor:
    return critic(replace(at, sample=sample or at.sample)).epsilon


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_dirac_critic_returns_the_injected_noise(schedule: Schedule) -> None:
    x = torch.randn(5, 2, 3, requires_grad=True)
    at, critic = diffused(Sample(x), schedule), DiracCritic()
    assert torch.equal(ask(critic, at), at.epsilon)
    assert not isinstance(critic, TrainedPart)


@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_particles_are_a_mixture_over_the_batch(bandwidth: float) -> None:
    at, critic = diffused(Sample(torch.randn(6, 2, 2))), ParticleCritic(bandwidth)
    mixture = GaussianMixture(at.sample.x, bandwidth, schedule=SCHEDULE)
    torch.testing.assert_close(ask(critic, at), mixture(at.x_t, at.t).epsilon, rtol=1e-9, atol=1e-9)
    log_prob = critic.log_prob(at)
    torch.testing.assert_close(log_prob, mixture.log_prob(at.x_t, at.t), rtol=1e-9, atol=1e-9)


def test_one_particle_is_the_dirac_critic() -> None:
    at = diffused(Sample(torch.randn(1, 4)))
    torch.testing.assert_close(ask(ParticleCritic(), at), at.epsilon, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("copies", [2, 5])
def test_duplicates_leave_the_mixture_unchanged(copies: int) -> None:
    at, critic = diffused(Sample(torch.randn(6, 3))), ParticleCritic(0.1)
    doubled = Sample(at.sample.x, population=at.sample.x.repeat(copies, 1))
    torch.testing.assert_close(ask(critic, at, doubled), ask(critic, at), rtol=1e-10, atol=1e-12)
    log_probs = [critic.log_prob(replace(at, sample=sample)) for sample in (doubled, at.sample)]
    torch.testing.assert_close(*log_probs, rtol=1e-10, atol=1e-12)


def test_particles_of_other_views_are_excluded() -> None:
    view = torch.tensor([0, 1, 0, 1, 0, 2])
    at, critic = diffused(Sample(torch.randn(6, 3), view_index=view)), ParticleCritic()
    together = ask(critic, at)
    for v in range(3):
        inside = view == v
        alone = Empirical(at.sample.x[inside], schedule=SCHEDULE)(at.x_t[inside], at.t[inside])
        torch.testing.assert_close(together[inside], alone.epsilon, rtol=1e-9, atol=1e-9)
    assert (together - ask(critic, at, Sample(at.sample.x))).abs().max() > 1e-3


def test_a_population_stands_for_the_whole_distribution() -> None:
    population, of = torch.randn(10, 3), torch.tensor([0, 1] * 5)
    at, critic = diffused(Sample(population[:4], view_index=of[:4])), ParticleCritic()
    every = Sample(at.sample.x, population=population)
    expected = Empirical(population, schedule=SCHEDULE)(at.x_t, at.t).epsilon
    torch.testing.assert_close(ask(critic, at, every), expected, rtol=1e-9, atol=1e-9)
    seen = Sample(at.sample.x, view_index=of[:4], population=population, population_view_index=of)
    rows = ask(critic, at, seen)[::2]
    expected = Empirical(population[::2], schedule=SCHEDULE)(at.x_t[::2], at.t[::2]).epsilon
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-9)


def test_a_negative_bandwidth_is_refused() -> None:
    with pytest.raises(ValueError, match="bandwidth must be at least 0, got -1"):
        ParticleCritic(-1)


def test_the_exact_critic_is_its_distribution() -> None:
    distribution = GaussianMixture(torch.randn(3, 2), 0.4, schedule=FlowSchedule())
    at, critic = diffused(Sample(torch.randn(5, 2)), FlowSchedule()), ExactCritic(distribution)
    assert torch.equal(ask(critic, at), distribution(at.x_t, at.t).epsilon)
    assert torch.equal(critic.log_prob(at), distribution.log_prob(at.x_t, at.t))


def test_unsupported_methods_of_critics_raise_clear_errors() -> None:
    at = diffused(Sample(torch.randn(2, 2)))
    with pytest.raises(TypeError, match=r"DiracCritic has no closed-form density; .*use ParticleCritic here"):
        DiracCritic().log_prob(at)


def test_score_and_density_of_the_particles_cost_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = []

    def counted(*arguments: object) -> MixturePosterior:
        evaluations.append(arguments)
        return diffused_mixture(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("scoredistill.critics.analytic.diffused_mixture", counted)
    critic = ParticleCritic()
    sample = Sample(torch.randn(8, 2, dtype=torch.float64))
    at = Diffused.diffuse(sample, 0.5, torch.randn(8, 2, dtype=torch.float64), CosineSchedule())
    critic(at)
    critic.log_prob(at)
    assert len(evaluations) == 1
    critic.bandwidth = 0.1
    critic.log_prob(at)
    assert len(evaluations) == 2
