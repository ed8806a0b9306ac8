"""A control variate, several noises with a reward, one fixed noise."""

import pytest
import torch
from laws.quadrature import ALPHA, SIGMA, moments, normal, normal_nodes, one_dimension, time_at
from laws.zoo import Brightness, Quadratic
from torch import Tensor

from scoredistill import Condition, Distiller, Sample
from scoredistill.critics import ParticleCritic
from scoredistill.diffusion import CFG, EDMSchedule, UniformWeight
from scoredistill.generators import ImageParticles
from scoredistill.losses import (
    SDS,
    VSD,
    Consistent3D,
    DensityReward,
    Objective,
    RandomizedSJC,
    Reward,
    RewardSDS,
    SteinSD,
)
from scoredistill.losses.objective import Gradient
from scoredistill.teachers import GaussianMixture
from scoredistill.testing import ReferenceTeacher
from scoredistill.types import Diffused

X = torch.randn(6, 2, dtype=torch.float64)
T = torch.linspace(0.2, 0.8, 6).double()
EPSILON = torch.randn(6, 2, dtype=torch.float64)
SAMPLE = Sample(X, Condition("left"), particle=torch.arange(6))


def of(loss: Objective, scale: float = 1.0) -> Distiller:
    return Distiller(ImageParticles(X), ReferenceTeacher(), loss, CFG(scale))


def gradient(loss: Objective, scale: float = 7.5, seed: int = 0) -> Gradient:
    rng = torch.Generator().manual_seed(seed)
    return of(loss, scale).evaluate(SAMPLE, t=T, epsilon=EPSILON, rng=rng).gradient


def test_stein_with_a_constant_function_is_sds_or_the_teacher_alone() -> None:
    assert torch.equal(gradient(SteinSD(scale=1.0)).g, gradient(SDS()).g)
    alone = gradient(SteinSD(scale=0.0))
    torch.testing.assert_close(alone.g, of(SDS()).teacher.schedule.sigma(T)[:, None] ** 2 * alone.target.epsilon)


@pytest.mark.parametrize("scale", [-0.5, 0.3, 1.0])
def test_a_control_variate_keeps_the_mean(scale: float) -> None:
    """E[epsilon phi - sigma grad phi] = 0 by quadrature, and so E[g] = w E[A], for any phi and scale."""
    x, teacher = 1.75, normal()
    expected = ALPHA * SIGMA * x
    distiller = one_dimension(SteinSD(Quadratic(), scale, weight=UniformWeight()), teacher)
    assert moments(distiller, x)[0] == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.84)


def test_a_fitted_scale_removes_the_variance_of_a_gaussian_teacher() -> None:
    """Var(A - mu epsilon) = (sigma^2 / v - mu)^2: .4096 for SDS, 0 at mu = .36, which the averages find."""
    loss, teacher = SteinSD(weight=UniformWeight(), decay=0.0), normal()
    distiller = one_dimension(loss, teacher)
    assert moments(distiller, 1.75)[1] == pytest.approx(0.4096)
    z, w = normal_nodes(40)
    rows = z[:, None] * w[:, None].sqrt() * 40**0.5  # weighted so that the batch's moments are the exact ones
    step = distiller.evaluate(Sample(torch.zeros(40, 1)), t=time_at(ALPHA), epsilon=rows)
    loss.observe(step.diffused, step.gradient)
    assert float(loss.mu) == pytest.approx(0.36, abs=1e-12)
    mean, variance = moments(distiller, 1.75)
    assert (mean, variance) == (pytest.approx(0.84), pytest.approx(0, abs=1e-20))


def test_a_better_function_leaves_less_variance_than_a_constant() -> None:
    """On a mixture the best multiple of epsilon leaves variance that phi, which follows A, removes further."""
    teacher = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.5)

    class Slope(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return 0.36 - 0.3 * torch.exp(-x_t.square().flatten(1).sum(1))

    found = []
    for loss in (SteinSD(scale=1.0), SteinSD(decay=0.0), SteinSD(Slope(), decay=0.0)):
        loss.weight = UniformWeight()
        distiller = one_dimension(loss, teacher)
        for _ in range(2 if loss.scale is None else 0):
            epsilon = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
            step = distiller.evaluate(Sample(torch.full((20000, 1), 0.3)), t=time_at(ALPHA), epsilon=epsilon)
            loss.observe(step.diffused, step.gradient)
        found.append(moments(distiller, 0.3)[1])
    assert found[2] < found[1] < found[0]


def test_the_scale_is_saved_and_does_not_depend_on_the_present_noise() -> None:
    loss = SteinSD(decay=0.9)
    step = of(loss).evaluate(SAMPLE, t=T, epsilon=EPSILON)
    assert float(loss.mu) == 1.0
    loss.observe(step.diffused, step.gradient)
    again = SteinSD()
    again.load_state_dict(loss.state_dict())
    assert float(again.mu) == float(loss.mu) != 1.0


class Constant(Reward):
    def forward(self, pictures: Tensor, condition: Condition | None) -> Tensor:
        return torch.ones(len(pictures), dtype=pictures.dtype)


def test_a_constant_reward_is_the_mean_over_the_noises() -> None:
    g = gradient(RewardSDS(Constant(), noises=3, weighting="softmax"), seed=1).g
    rng, noises = torch.Generator().manual_seed(1), [EPSILON]
    noises += [torch.randn(6, 2, generator=rng, dtype=torch.float64) for _ in range(2)]
    plain = [of(SDS(), 7.5).evaluate(SAMPLE, t=T, epsilon=each).gradient.g for each in noises]
    torch.testing.assert_close(g, torch.stack(plain).mean(0), rtol=1e-12, atol=1e-13)
    one = gradient(RewardSDS(Constant(), VSD(ParticleCritic(0.2)), noises=1, weighting="best", best=1)).g
    assert torch.equal(one, gradient(VSD(ParticleCritic(0.2))).g)


def test_sjc_averages_sds_over_its_noises() -> None:
    assert torch.equal(gradient(RandomizedSJC()).g, gradient(SDS()).g)
    rng, noises = torch.Generator().manual_seed(1), [EPSILON]
    noises += [torch.randn(6, 2, generator=rng, dtype=torch.float64) for _ in range(2)]
    plain = [of(SDS(), 7.5).evaluate(SAMPLE, t=T, epsilon=each).gradient.g for each in noises]
    found = gradient(RandomizedSJC(3), seed=1).g
    torch.testing.assert_close(found, torch.stack(plain).mean(0), rtol=1e-12, atol=1e-13)


def test_perturb_and_average_in_the_papers_terms() -> None:
    """(x - D(x + sigma n)) / sigma with alpha = 1."""
    teacher = GaussianMixture(torch.tensor([[0.3, -0.2]]), 0.6, schedule=EDMSchedule())
    g = Distiller(ImageParticles(X), teacher, RandomizedSJC(weight=UniformWeight())).gradient(X, t=T, epsilon=EPSILON)
    sigma = teacher.schedule.sigma(T)[:, None]
    denoised = teacher(X + sigma * EPSILON, T).x0
    torch.testing.assert_close(g, (X - denoised) / sigma, rtol=1e-9, atol=1e-10)


def test_the_weights_of_rewards() -> None:
    rewards = torch.tensor([[3.0, 0.0], [1.0, 2.0], [2.0, 1.0], [0.0, 3.0]])
    best, both = (RewardSDS(Constant(), noises=4, weighting=kind).weights(rewards) for kind in ("best", "min_max"))
    assert torch.equal(best, torch.tensor([[0.5, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, 0.5]]))
    torch.testing.assert_close(both[:, 0], torch.tensor([0.45, -0.05, 0.45, -0.05]))
    assert both.sum(0).tolist() == pytest.approx([0.8, 0.8])
    soft = RewardSDS(Constant(), weighting="softmax", temperature=0.5).weights(rewards)
    torch.testing.assert_close(soft, (2 * rewards).softmax(0))


def test_the_density_as_a_reward_prefers_what_the_teacher_finds_likely() -> None:
    teacher = GaussianMixture(torch.tensor([[-1.0, 0.0], [2.0, 0.0]]), 0.4, labels=torch.tensor([0, 1]))
    condition = Condition(label=torch.zeros(2, dtype=torch.long))
    reward = DensityReward(teacher)(torch.tensor([[-1.0, 0.0], [2.0, 0.0]]), condition)
    assert reward[0] > reward[1] + 10
    t = torch.full((2,), 0.1)
    x_t = teacher.schedule.alpha(t)[:, None] * X[:2]
    torch.testing.assert_close(DensityReward(teacher)(X[:2], condition), teacher.log_prob(x_t, t, condition))


def test_a_higher_reward_draws_the_clean_prediction_up() -> None:
    """The best of many noises by brightness moves a sample to brighter ones than the mean noise does."""
    plain, best = (gradient(RewardSDS(Brightness(), noises=16, weighting=kind)) for kind in ("softmax", "best"))
    assert (best.g.sum(1) < plain.g.sum(1)).double().mean() > 0.5
    assert best.metrics["reward/best"] > best.metrics["reward/mean"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"best": 9}, "best: 9 of 8 noises"), ({"noises": 0}, "noises must be at least 1")],
)
def test_impossible_numbers_of_noises(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardSDS(Constant(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("high", "low"), [(5.0, 1.0), (0.9, 0.2)])
def test_consistency_pulls_to_the_mode(high: float, low: float) -> None:
    """E[A(x_t) - A(x_t')] = (x - mu) v (S - S') / ((v + S^2)(v + S'^2)) in a variance-exploding teacher N(mu, v)."""
    mu, v, x = 0.5, 0.6, 2.0
    schedule = EDMSchedule()
    teacher = GaussianMixture(torch.tensor([[mu]]), v**0.5, schedule=schedule)
    t, before = (schedule.t_at_log_snr(torch.tensor([-2.0]) * torch.tensor(s).log()) for s in (high, low))
    loss = Consistent3D(gap=float(t - before))
    z, w = normal_nodes(20)
    drift = 0.0
    for noise, share in zip(z, w, strict=True):
        loss._noise = lambda particle, x, noise=noise: noise.reshape(1)  # type: ignore[method-assign,misc]
        g = one_dimension(loss, teacher).gradient(torch.tensor([[x]]), t=t, epsilon=torch.zeros(1, 1))
        drift += float(share * g)
    expected = (x - mu) * v * (high - low) / ((v + high**2) * (v + low**2))
    assert drift == pytest.approx(expected, rel=1e-9)
    assert drift > 0


def test_the_noise_is_fixed_per_particle() -> None:
    loss, teacher = Consistent3D(), ReferenceTeacher()
    at = Diffused.diffuse(Sample(X[:3], particle=torch.tensor([4, 1, 4])), T[:3], EPSILON[:3], teacher.schedule)
    first, second, third = loss.prepare(at, teacher, CFG()).epsilon
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    assert not torch.equal(Consistent3D(seed=1).prepare(at, teacher, CFG()).epsilon[0], first)
