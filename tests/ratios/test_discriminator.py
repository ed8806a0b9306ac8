"""The learned ratio: its limit, and its losses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scoredistill import Distiller
from scoredistill.critics import DiracCritic, ExactCritic, NetworkCritic
from scoredistill.diffusion import CosineSchedule, UniformTimesteps
from scoredistill.divergences import ForwardKL, JensenShannon
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, VSD, FDistill, WithGAN
from scoredistill.networks import MLPBackbone
from scoredistill.ratios import DiscriminatorRatio, ExactRatio
from scoredistill.ratios.discriminator import AdversarialLoss
from scoredistill.teachers import GaussianMixture, NetworkTeacher, sample
from scoredistill.types import Batch, Diffused, Sample

SCHEDULE = CosineSchedule()
OBJECTIVES: list[AdversarialLoss] = ["non_saturating", "least_squares", "hinge"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own(objective: AdversarialLoss = "non_saturating", **settings: float | None) -> DiscriminatorRatio:
    discriminator = DiscriminatorRatio(MLPBackbone((2,), hidden=32, layers=2), objective, hidden=32, **settings)  # type: ignore[arg-type]
    torch.nn.init.normal_(discriminator.head.out.weight)  # type: ignore[union-attr]
    return discriminator


def pair(n: int = 6) -> tuple[Diffused, Diffused, GaussianMixture]:
    teacher = GaussianMixture(torch.zeros(1, 2), 1.0)
    t = torch.linspace(0.1, 0.9, n)
    fake, real = (Diffused.diffuse(Sample(torch.randn(n, 2)), t, torch.randn(n, 2), SCHEDULE) for _ in range(2))
    return fake, real, teacher


def logits(discriminator: DiscriminatorRatio, at: Diffused, teacher: GaussianMixture) -> Tensor:
    return discriminator.logit(at, teacher)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_are_their_equations(objective: AdversarialLoss) -> None:
    fake, real, teacher = pair()
    discriminator = own(objective)
    a, b = logits(discriminator, real, teacher), logits(discriminator, fake, teacher)
    expected = {
        "non_saturating": -torch.log(torch.sigmoid(a)) - torch.log(1 - torch.sigmoid(b)),
        "least_squares": (a - 1) ** 2 + b**2,
        "hinge": (1 - a).clamp(min=0) + (1 + b).clamp(min=0),
    }
    torch.testing.assert_close(discriminator.pair_error(fake, real, teacher), expected[objective])
    wanted = {"non_saturating": -torch.log(torch.sigmoid(b)), "least_squares": (b - 1) ** 2, "hinge": -b}
    torch.testing.assert_close(discriminator.generator_error(b), wanted[objective])


def test_ratio_of_each_objective() -> None:
    fake, _, teacher = pair()
    for objective, law in (("non_saturating", lambda d: d), ("least_squares", lambda d: torch.log(d / (1 - d)))):
        discriminator = own(objective, clamp=3.0)  # type: ignore[arg-type]
        raw = logits(discriminator, fake, teacher)
        low, high = (torch.sigmoid(torch.tensor(c)) for c in (-3.0, 3.0))
        inside = raw.clamp(low, high) if objective == "least_squares" else raw.clamp(-3, 3)
        torch.testing.assert_close(discriminator(fake, teacher, None), law(inside))
    with pytest.raises(ValueError, match="a hinge discriminator has no density ratio"):
        own("hinge")(fake, teacher, None)


def test_exact_r1_is_the_squared_gradient_on_data() -> None:
    fake, real, teacher = pair()
    plain, discriminator = own(), own(r1=0.7)
    discriminator.load_state_dict(plain.state_dict())
    penalty = discriminator.pair_error(fake, real, teacher) - plain.pair_error(fake, real, teacher)
    for row in range(len(real.t)):

        def at(x_t: Tensor, row: int = row) -> Tensor:
            moved = real.x_t.clone()
            moved[row] = x_t
            return plain.logit(replace(real, x_t=moved), teacher)[row]

        slope = torch.autograd.functional.jacobian(at, real.x_t[row])
        torch.testing.assert_close(penalty[row], 0.35 * slope.square().sum())
    penalty.sum().backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in discriminator.parameters() if p.grad is not None)


def test_finite_differences_agree_with_exact_r1_on_average() -> None:
    fake, real, teacher = pair(2)
    exact, rough = own(r1=1.0), own(r1=1.0, r1_step=1e-3)
    rough.load_state_dict(exact.state_dict())
    with torch.no_grad():
        base = own()
        base.load_state_dict(exact.state_dict())
        plain = base.pair_error(fake, real, teacher)
        draws = torch.stack([rough.pair_error(fake, real, teacher) - plain for _ in range(2000)])
    target = (exact.pair_error(fake, real, teacher) - plain).detach()
    standard_error = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - target).abs() < 3 * standard_error).all())


@pytest.mark.parametrize("source", ["teacher", "critic"])
def test_features_of_the_teacher_stay_frozen_and_those_of_the_critic_learn(source: str) -> None:
    teacher = NetworkTeacher(MLPBackbone((2,), hidden=16, layers=2))
    discriminator = DiscriminatorRatio(source, hidden=8)  # type: ignore[arg-type]
    loss = FDistill(ForwardKL(), NetworkCritic(), discriminator)
    distiller = Distiller(ImageParticles(torch.randn(5, 2)), teacher, loss)
    torch.nn.init.normal_(discriminator.head.out.weight)  # type: ignore[union-attr]
    diffused = distiller.diffused_sample(Batch(data=torch.randn(5, 2)), rng=rng())
    distiller.discriminator_error(diffused).mean().backward()
    assert all(weight.grad is not None for weight in discriminator.parameters())
    learned = [float(p.grad.abs().sum()) for p in distiller.critics[0].parameters() if p.grad is not None]
    assert (sum(learned) > 0) == (source == "critic")
    assert all(weight.grad is None for weight in teacher.parameters())
    assert {id(p) for p in discriminator.parameters()}.isdisjoint({id(p) for p in teacher.parameters()})


def test_missing_conditions_are_reported() -> None:
    teacher, critic = GaussianMixture(torch.zeros(1, 2), 1.0), DiracCritic()
    particles = ImageParticles(torch.randn(5, 2))
    with pytest.raises(ValueError, match="GaussianMixture has no network to initialize the discriminator"):
        Distiller(particles, teacher, FDistill(ForwardKL(), critic, DiscriminatorRatio()))
    with pytest.raises(ValueError, match="DiracCritic has no network that the discriminator could use"):
        Distiller(particles, teacher, FDistill(ForwardKL(), critic, DiscriminatorRatio("critic")))
    distiller = Distiller(particles, teacher, FDistill(ForwardKL(), DiracCritic(), own()))
    with pytest.raises(ValueError, match="needs real samples, but the batch has none"):
        distiller.discriminator_error(distiller.diffused_sample(rng=rng()))
    with pytest.raises(ValueError, match="the batch has 5 generated samples and 3 real ones"):
        distiller.discriminator_error(distiller.diffused_sample(Batch(data=torch.zeros(3, 2)), rng=rng()))
    with pytest.raises(ValueError, match="clamp must be above 0, got 0"):
        own(clamp=0.0)
    with pytest.raises(ValueError, match="WithGAN needs a discriminator"):
        WithGAN(SDS())


P, Q = GaussianMixture(torch.zeros(1, 2), 1.0), GaussianMixture(torch.tensor([[0.8, -0.4]]), 0.8)


def trained(steps: int = 1500, batch: int = 512) -> tuple[DiscriminatorRatio, Diffused]:
    discriminator = DiscriminatorRatio(MLPBackbone((2,), hidden=64, layers=2), hidden=64, sigma_data=1.0)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    times, noise = UniformTimesteps(0.2, 0.8), rng()

    def draw(of: GaussianMixture, t: Tensor) -> Diffused:
        return Diffused.diffuse(
            Sample(of.sample(len(t), rng=noise)[0]), t, torch.randn(len(t), 2, generator=noise), SCHEDULE
        )

    for _ in range(steps):
        t = times(batch, SCHEDULE, rng=noise)
        optimizer.zero_grad()
        discriminator.pair_error(draw(Q, t), draw(P, t), P).mean().backward()
        optimizer.step()
        decay.step()
    return discriminator.eval(), draw(Q, times(4000, SCHEDULE, rng=noise))


@pytest.mark.slow
def test_a_trained_ratio_is_the_exact_one_and_so_is_its_gradient() -> None:
    """A Gaussian pair: r within 10% over the central 90% of q, the h-weighted gradient's cosine above .98."""
    discriminator, at = trained()
    exact = ExactRatio()(at, P, ExactCritic(Q))
    with torch.no_grad():
        learned = discriminator(at, P, None)
    radius = (at.x_t - 0.0 - SCHEDULE.alpha(at.t)[:, None] * Q.means[0]).norm(dim=1)
    spread = (SCHEDULE.alpha(at.t) ** 2 * 0.64 + SCHEDULE.sigma(at.t) ** 2).sqrt()
    central = radius / spread < torch.quantile(radius / spread, 0.9)
    error = (learned - exact).exp() - 1
    assert float(error[central].square().mean().sqrt()) < 0.1
    for divergence in (ForwardKL(), JensenShannon()):
        g = []
        for ratio in (ExactRatio(), discriminator):
            loss = FDistill(divergence, ExactCritic(Q), ratio)
            g.append(loss.gradient(at, P).g)
        cosine = torch.nn.functional.cosine_similarity(g[0].flatten(), g[1].flatten(), dim=0)
        assert float(cosine) > 0.98


def test_gan_adds_the_gradient_of_its_term_in_x() -> None:
    fake, _, teacher = pair()
    discriminator = own()
    alone = SDS()
    both = WithGAN(SDS(), discriminator, gan_weight=0.3)
    Distiller(ImageParticles(fake.sample.x), teacher, both)
    Distiller(ImageParticles(fake.sample.x), teacher, alone)
    x = fake.sample.x.clone().requires_grad_()
    x_t = SCHEDULE.alpha(fake.t)[:, None] * x + SCHEDULE.sigma(fake.t)[:, None] * fake.epsilon
    error = discriminator.generator_error(discriminator.logit(replace(fake, x_t=x_t), teacher))
    (slope,) = torch.autograd.grad(error.sum(), x)
    gradient = both.gradient(fake, teacher)
    torch.testing.assert_close(gradient.g, alone.gradient(fake, teacher).g + 0.3 * slope)
    assert {"gan/distillation_norm", "gan/norm", "gan/weight"} <= gradient.report().keys()
    assert all(weight.grad is None for weight in discriminator.parameters())
    silent = WithGAN(SDS(), discriminator, gan_weight=0.0)
    Distiller(ImageParticles(fake.sample.x), teacher, silent)
    assert torch.equal(silent.gradient(fake, teacher).g, alone.gradient(fake, teacher).g)


def test_balance_sets_the_terms_share_of_the_gradients_norm() -> None:
    fake, _, teacher = pair()
    alone, both = SDS(), WithGAN(SDS(), own(), balance=0.25)
    for loss in (alone, both):
        Distiller(ImageParticles(fake.sample.x), teacher, loss)
    first, second = (loss.gradient(fake, teacher).g for loss in (alone, both))
    torch.testing.assert_close((second - first).norm(), 0.25 * first.norm())


def gan(source: str, objective: AdversarialLoss) -> tuple[WithGAN, NetworkTeacher, Diffused, list[int]]:
    """f-distill with the adversarial term of its own ratio, and the rows of each call of D, which has dropout."""
    torch.manual_seed(0)
    teacher = NetworkTeacher(MLPBackbone((2,), hidden=16, layers=2))
    features = MLPBackbone((2,), hidden=16, layers=2) if source == "own" else source
    discriminator = DiscriminatorRatio(features, objective, hidden=8)  # type: ignore[arg-type]
    loss = WithGAN(FDistill(JensenShannon(), NetworkCritic(), discriminator), gan_weight=0.3)
    Distiller(ImageParticles(torch.randn(6, 2)), teacher, loss)
    assert discriminator.head is not None
    discriminator.head.second = torch.nn.Sequential(discriminator.head.second, torch.nn.Dropout(0.5))
    torch.nn.init.normal_(discriminator.head.out.weight)
    torch.nn.init.constant_(discriminator.head.out.bias, 0.5)  # half way between the targets of least squares
    t = torch.linspace(0.1, 0.9, 6)
    rows: list[int] = []
    discriminator.head.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    return loss, teacher, Diffused.diffuse(Sample(torch.randn(6, 2)), t, torch.randn(6, 2), teacher.schedule), rows


@pytest.mark.parametrize("source", ["own", "teacher", "critic"])
@pytest.mark.parametrize("objective", ["non_saturating", "least_squares"])
def test_one_call_of_the_discriminator_serves_ratio_and_term(source: str, objective: AdversarialLoss) -> None:
    loss, teacher, diffused, rows = gan(source, objective)
    together = loss.gradient(diffused, teacher)
    assert rows == [6]
    alone = loss.loss.gradient(diffused, teacher)
    discriminator, x_t = loss.discriminator.eval(), diffused.x_t.clone().requires_grad_()
    logit = discriminator.logit(replace(diffused, x_t=x_t), teacher)
    (slope,) = torch.autograd.grad(discriminator.generator_error(logit).sum(), x_t)
    term = diffused.schedule.alpha(diffused.t)[:, None] * slope
    assert rows == [6, 6, 6]
    assert alone.reweighting.log_r is not None
    assert alone.reweighting.log_r.std() > 0
    assert term.abs().min() > 0
    assert torch.equal(together.g, alone.g + torch.tensor(0.3) * term)
    assert torch.equal(together.reweighting.log_r, alone.reweighting.log_r)  # type: ignore[arg-type]


def test_cached_logits_are_not_used_for_other_samples() -> None:
    loss, teacher, diffused, rows = gan("own", "non_saturating")
    ratio, far = loss.discriminator, torch.full((6,), 9.0)
    with ratio.with_logit(diffused, far):
        assert torch.equal(ratio(diffused, teacher, None), far)
        assert rows == []
        same = Diffused(diffused.x_t.clone(), diffused.t, diffused.epsilon, diffused.sample, diffused.schedule)
        assert not torch.equal(ratio(same, teacher, None), far)
    assert not torch.equal(ratio(diffused, teacher, None), far)
    with pytest.raises(KeyboardInterrupt), ratio.with_logit(diffused, far):
        raise KeyboardInterrupt
    assert not torch.equal(ratio(diffused, teacher, None), far)
    assert rows == [6, 6, 6]


def test_gan_shares_the_discriminator_of_its_loss_and_trains_it_once() -> None:
    loss = WithGAN(FDistill(ForwardKL(), NetworkCritic(MLPBackbone((2,), 16, 1)), own()))
    distiller = Distiller(ImageParticles(torch.randn(5, 2)), GaussianMixture(torch.zeros(1, 2), 1.0), loss)
    assert distiller.discriminators == [loss.discriminator]
    assert len(distiller.critics) == 1
    assert loss.critic is distiller.critics[0]


def test_a_critics_dropout_does_not_reach_the_gradient() -> None:
    network = torch.nn.Sequential()
    backbone = MLPBackbone((2,), hidden=16, layers=2)
    torch.nn.init.normal_(backbone.out.weight)
    backbone.deep = torch.nn.Dropout(0.5)
    network.append(backbone)
    distiller = Distiller(ImageParticles(torch.randn(5, 2)), P, VSD(NetworkCritic(backbone)))
    assert backbone.training
    x, t, epsilon = torch.randn(5, 2), torch.full((5,), 0.5), torch.randn(5, 2)
    first, second = (distiller.gradient(x, t=t, epsilon=epsilon) for _ in range(2))
    assert torch.equal(first, second)
    assert backbone.training


def test_own_times_move_the_term_and_the_training_and_not_the_objective() -> None:
    teacher, x = GaussianMixture(torch.zeros(1, 2), 1.0), torch.randn(6, 2)
    ratio = own()
    ratio.timesteps = UniformTimesteps(0.7, 0.7)
    loss = WithGAN(SDS(), ratio, gan_weight=0.5)
    t, epsilon = torch.linspace(0.1, 0.9, 6), torch.randn(6, 2)
    at = Diffused.diffuse(Sample(x, data=torch.randn(6, 2)), t, epsilon, SCHEDULE, rng=rng(1))
    found = loss.gradient(at, teacher)
    assert found.diffused.x_t is at.x_t
    draws = rng(1)
    torch.rand(6, dtype=torch.float64, generator=draws)
    other = Diffused.diffuse(Sample(x), 0.7, torch.randn(6, 2, generator=draws), SCHEDULE)
    moved = other.x_t.clone().requires_grad_()
    error = ratio.generator_error(ratio.logit(replace(other, x_t=moved), teacher))
    (slope,) = torch.autograd.grad(error.sum(), moved)
    expected = SDS().gradient(at, teacher).g + 0.5 * other.alpha[:, None] * slope
    torch.testing.assert_close(found.g, expected)
    seen: list[Tensor] = []
    ratio.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    ratio.training_error(replace(at, rng=rng(1)), teacher)
    features = ratio.own.network.features  # type: ignore[union-attr]
    scaled = ratio.own._scaled(other.x_t, other.t, SCHEDULE)  # type: ignore[union-attr]
    torch.testing.assert_close(seen[0], features(scaled, SCHEDULE.log_snr(other.t), None))


def test_real_samples_may_be_the_teachers_own() -> None:
    teacher, zeros = GaussianMixture(torch.full((1, 2), 5.0), 0.1), torch.zeros(64, 2)
    fake = Diffused.diffuse(Sample(zeros), 0.0, zeros, SCHEDULE, rng=rng())
    ratio = DiscriminatorRatio(MLPBackbone((2,), hidden=32, layers=2), teacher_steps=12)
    real = ratio._real(fake, teacher)
    assert torch.equal(real.t, fake.t)
    assert (real.sample.x - 5).abs().max() < 0.6
    assert torch.equal(real.sample.x, sample(teacher, 64, (2,), steps=12, z=torch.randn(64, 2, generator=rng())))
    with pytest.raises(ValueError, match="or set teacher_steps"):
        own().training_error(fake, teacher)
