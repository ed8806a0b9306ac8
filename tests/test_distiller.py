"""The distiller: a pure function of x, t, epsilon and networks."""

from collections.abc import Callable

import pytest
import torch
from laws.zoo import GUIDANCES, LOSSES, discriminator, mlp_critic, training_loss
from torch import Tensor, nn

from scoredistill import Batch, Condition, Distiller, Sample
from scoredistill.annealing import Knot, Piecewise
from scoredistill.critics import ParticleCritic
from scoredistill.diffusion import CFG, EDMSchedule, NoiseLevelTimesteps, UniformTimesteps
from scoredistill.distiller import surrogate
from scoredistill.divergences import ForwardKL
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, VSD, FDistill, ScoreDistillation
from scoredistill.teachers import Empirical, GaussianMixture
from scoredistill.testing import ReferenceTeacher

Make = Callable[[], ScoreDistillation]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teacher() -> GaussianMixture:
    return GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.4)


def distiller(loss: ScoreDistillation, n: int = 6) -> Distiller:
    return Distiller(ImageParticles(torch.randn(n, 2, generator=rng(1))), ReferenceTeacher(), loss)


def asked(n: int = 6) -> Batch:
    return Batch(Condition("asked"), n)


NESTED = {key: make for key, make in LOSSES.items() if key.startswith(("SDS", "VSD", "FDistill", "CSD", "DDS", "GAN"))}
"""The nested objectives; the kit's laws run over all of them."""


def rows(n: int = 6) -> dict[str, Tensor]:
    return {"t": torch.linspace(0.1, 0.9, n), "epsilon": torch.randn(n, 2, generator=rng(2))}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("guidance", GUIDANCES.values(), ids=GUIDANCES.keys())
def test_a_gradient_changes_nothing(make: Make, guidance: Callable[[], CFG]) -> None:
    ours = distiller(make())
    ours.guidance = guidance()
    x = torch.randn(6, 2, generator=rng(3))
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    random, kept = torch.get_rng_state(), x.clone()
    g = ours.gradient(x, **rows(), condition=Condition("asked"))
    assert g.shape == x.shape
    assert not g.requires_grad
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), random)
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    assert all(parameter.grad is None for parameter in ours.parameters())
    assert torch.equal(ours.gradient(x, **rows(), condition=Condition("asked")), g)


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
def test_a_step_is_a_function_of_its_generator(make: Make) -> None:
    ours = distiller(make())
    random = torch.get_rng_state()
    first, again, other = (float(ours.generator_loss(asked(), rng=rng(seed)).detach()) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
def test_the_surrogates_gradient_is_g_over_the_batch(make: Make) -> None:
    ours = distiller(make())
    step = ours.evaluate(asked(), rng=rng(5))
    step.loss.backward()
    torch.testing.assert_close(ours.generator.values.grad, step.gradient.g / 6, rtol=1e-14, atol=0)
    assert float(step.loss.detach()) == pytest.approx(float((step.gradient.g**2).sum() / 12))
    at = {"t": step.diffused.t, "epsilon": step.diffused.epsilon, "condition": step.diffused.condition}
    again = ours.gradient(ours.generator.values.detach(), **at)
    torch.testing.assert_close(again, step.gradient.g, rtol=1e-13, atol=1e-15)


def test_the_surrogate_goes_through_the_generator() -> None:
    theta, g = torch.randn(4, requires_grad=True), torch.randn(3, 2)
    jacobian = torch.randn(6, 4)
    surrogate(Sample((jacobian @ theta).view(3, 2)), g).backward()
    torch.testing.assert_close(theta.grad, jacobian.T @ g.flatten() / 3)


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
def test_float32_agrees_with_float64(make: Make) -> None:
    double, x, at = distiller(make()), torch.randn(6, 2, generator=rng(3)), rows()
    expected = double.gradient(x, **at, condition=Condition("asked"))
    single = distiller(make()).float()
    at = {key: value.float() for key, value in at.items()}
    ours = single.gradient(x.float(), **at, condition=Condition("asked"))
    assert ours.dtype == torch.float32
    # Rounding t, x_t and the noise moves h and A - B by some 1e-6 of the batch's largest.
    assert float((ours - expected).abs().max()) < 3e-5 * float(expected.abs().max())


def test_a_loss_without_a_trained_critic_has_no_critic_loss() -> None:
    assert distiller(SDS()).critics == []
    with pytest.raises(ValueError, match="SDS has no trained critic"):
        distiller(SDS()).critic_loss()


def test_critic_loss_trains_the_critic_alone() -> None:
    ours = distiller(VSD(mlp_critic()))
    assert ours.critics == [ours.loss.critic]
    first, again = ours.critic_loss(rng=rng(1)), ours.critic_loss(rng=rng(1))
    assert torch.equal(first, again)
    first.backward()
    assert ours.generator.values.grad is None
    assert any(bool(parameter.grad.any()) for parameter in ours.loss.critic.parameters())


class TwoCritics(VSD):
    """A user's loss with a second trained critic under two names."""

    def __init__(self) -> None:
        super().__init__(mlp_critic())
        self.second = self.alias = mlp_critic()
        nn.init.normal_(self.second.denoiser.network.out.weight)


def test_every_trained_critic_is_trained_once() -> None:
    ours = distiller(TwoCritics())
    diffused = ours.evaluate(rng=rng()).diffused
    first, second = training_loss(ours.loss.critic, diffused), training_loss(ours.loss.second, diffused)
    assert first != second
    torch.testing.assert_close(ours.critic_loss(diffused=diffused), first + second)


def test_critic_timesteps_are_the_critics_own() -> None:
    seen: list[Tensor] = []
    ours = Distiller(
        ImageParticles(torch.randn(6, 2)), teacher(), VSD(mlp_critic()), critic_timesteps=UniformTimesteps(0.9, 0.95)
    )
    critic = ours.loss.critic
    original = critic.training_error
    critic.training_error = lambda diffused, teacher: seen.append(diffused.t) or original(diffused, teacher)
    ours.critic_loss(rng=rng())
    assert 0.9 <= seen[0].min() <= seen[0].max() <= 0.95
    assert Distiller(ours.generator, ours.teacher, ours.loss).critic_timesteps is not ours.critic_timesteps


def test_timesteps_follow_progress() -> None:
    ours = distiller(SDS())
    ours.timesteps = NoiseLevelTimesteps(Piecewise([Knot(0, 10, "geometric"), Knot(1, 0.1)]))
    schedule = ours.teacher.schedule
    for progress, ratio in ((0.0, 10.0), (0.5, 1.0), (1.0, 0.1)):
        t = ours.evaluate(progress=progress).diffused.t
        torch.testing.assert_close(schedule.sigma(t) / schedule.alpha(t), torch.full((6,), ratio))


def test_the_teacher_is_frozen() -> None:
    class Learned(GaussianMixture):
        def __init__(self) -> None:
            super().__init__(torch.zeros(1, 2), 1.0, schedule=EDMSchedule())
            self.scale = nn.Parameter(torch.ones(()))

    ours = Distiller(ImageParticles(torch.randn(3, 2)), Learned(), SDS())
    assert not any(parameter.requires_grad for parameter in ours.teacher.parameters())


def noisy(ours: Distiller, x: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and sigma for `rows`."""
    at, schedule = rows(len(x)), ours.teacher.schedule
    sigma = schedule.sigma(at["t"])[:, None]
    return schedule.alpha(at["t"])[:, None] * x + sigma * at["epsilon"], sigma


def baseline(ours: Distiller, x: Tensor, sample: Sample | None = None) -> Tensor:
    """B, computed from g = sigma^2 (A - B)."""
    x_t, sigma = noisy(ours, x)
    target = ours.teacher(x_t, rows(len(x))["t"]).epsilon
    return target - ours.gradient(x, **rows(len(x)), sample=sample) / sigma**2


def mixture_over(particles: Tensor, ours: Distiller, x: Tensor) -> Tensor:
    return Empirical(particles, schedule=ours.teacher.schedule)(noisy(ours, x)[0], rows(len(x))["t"]).epsilon


@pytest.mark.parametrize(("rows_of_x", "own"), [(2, True), (5, True), (6, False), (9, False)])
def test_x_is_the_population_only_where_it_has_a_row_for_every_particle(rows_of_x: int, own: bool) -> None:
    ours, x = distiller(VSD(ParticleCritic())), torch.randn(rows_of_x, 2, generator=rng(4))
    expected = mixture_over(ours.generator.values.detach() if own else x, ours, x)
    torch.testing.assert_close(baseline(ours, x), expected, rtol=1e-9, atol=1e-9)


def test_a_samples_own_population_is_used() -> None:
    ours, x, others = distiller(VSD(ParticleCritic())), torch.randn(2, 2), torch.randn(4, 2)
    seen = baseline(ours, x, Sample(x, population=others))
    torch.testing.assert_close(seen, mixture_over(others, ours, x), rtol=1e-9, atol=1e-9)


def test_the_population_includes_particles_that_are_not_in_the_step() -> None:
    particles = torch.randn(8, 2, generator=rng(1))
    ours = Distiller(ImageParticles(particles, per_step=3), teacher(), VSD(ParticleCritic()))
    step = ours.evaluate(Batch(), rng=rng())
    assert step.diffused.x_t.shape == (3, 2)
    expected = Empirical(particles)(step.diffused.x_t, step.diffused.t).epsilon
    torch.testing.assert_close(step.gradient.baseline, expected, rtol=1e-9, atol=1e-9)


def test_trained_parts_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    critic, ratio = mlp_critic(), discriminator((2,))
    made = distiller(FDistill(ForwardKL(), critic, ratio))
    monkeypatch.setattr(made.loss, "modules", lambda: pytest.fail("the networks are searched"))
    assert made.critics == [critic]
    assert made.discriminators == [ratio]
