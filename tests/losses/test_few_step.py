"""Few-step objectives: their equations, the equalities between them, and the calls of the networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from laws.zoo import discriminator, mlp, mlp_critic
from torch import Tensor, nn
from training.test_module import fit

from scoredistill import Batch, Condition, Distiller
from scoredistill.critics import DiracCritic, NetworkCritic
from scoredistill.diffusion import (
    CFG,
    EDMSchedule,
    FlowSchedule,
    Prediction,
    Schedule,
    TimestepSampler,
    UniformTimesteps,
    UniformWeight,
)
from scoredistill.generators import Generator, ImageParticles, NeRF, OneStepUNet
from scoredistill.losses import (
    DMD,
    DMD2,
    LADD,
    SDS,
    TDM,
    VSD,
    ADDDistillation,
    ADDWeight,
    DecoupledDMD,
    DMDNormalizer,
    Objective,
    Regression,
    SenseFlow,
    WithGAN,
)
from scoredistill.ratios import DiscriminatorRatio
from scoredistill.teachers import Digits, Gallery, NetworkTeacher, Teacher
from scoredistill.testing import ReferenceTeacher
from scoredistill.training import ConditionDataModule, Distillation, PromptAndCameras
from scoredistill.types import Diffused, Sample, Segment

B = 5
ASKED = Condition("asked")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed))


def dmd(critic: NetworkCritic) -> VSD:
    return VSD(critic, UniformWeight(), DMDNormalizer())


def gradient_of(
    loss: Objective,
    sample: Sample,
    t: Tensor | None = None,
    guidance: CFG | None = None,
    schedule: Schedule | None = None,
) -> Tensor:
    """g at given samples."""
    distiller = Distiller(ImageParticles(sample.x.detach()), ReferenceTeacher(schedule=schedule), loss, guidance)
    t = torch.linspace(0.2, 0.8, len(sample.x)) if t is None else t
    sample = replace(sample, condition=sample.condition or ASKED)
    return distiller.evaluate(sample, t=t, epsilon=numbers(*sample.x.shape, seed=7), rng=rng(3)).gradient.g


def segment(n: int = B, t: float = 0.75, s: float = 0.5, schedule: Schedule | None = None) -> Segment:
    """A step of a small student."""
    student = mlp_critic().denoiser
    assert student is not None
    return Segment(numbers(n, 2, seed=4), torch.full((n,), t), torch.full((n,), s), student, schedule or FlowSchedule())


class Faithful(nn.Module):
    """A distance that is not a mean over dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.layer(x) - self.layer(y)).sin().square().sum(1)


def test_dmd_without_pairs_is_reverse_kl_with_its_normalizer() -> None:
    sample = Sample(numbers(B, 2))
    assert torch.equal(gradient_of(DMD(mlp_critic()), sample), gradient_of(dmd(mlp_critic()), sample))


@pytest.mark.parametrize("make", [lambda: None, Faithful], ids=["squared", "module"])
def test_dmd_adds_the_gradient_of_the_distance_to_the_pairs(make: Callable[[], nn.Module | None]) -> None:
    distance = make()
    x, y = numbers(B, 2), numbers(B, 2, seed=1)
    found = gradient_of(DMD(mlp_critic(), 0.4, distance), Sample(x, target=y))
    found = found - gradient_of(dmd(mlp_critic()), Sample(x))
    moved = x.clone().requires_grad_()
    d = (moved - y).square().mean(1) if distance is None else distance(moved, y)
    (slope,) = torch.autograd.grad(0.4 * 2 * d.sum(), moved)
    torch.testing.assert_close(found, slope)
    alone = gradient_of(Regression(distance), Sample(x, target=y))
    torch.testing.assert_close(0.4 * alone, slope)
    step = 1e-6 * torch.tensor([1.0, 0.0])
    value = (lambda z: (z - y).square().mean(1)) if distance is None else (lambda z: distance(z, y))
    quotient = 2 * (value(x + step) - value(x - step)) / 2e-6
    torch.testing.assert_close(alone[:, 0], quotient.detach(), rtol=1e-6, atol=1e-8)


def test_a_regression_needs_pairs() -> None:
    with pytest.raises(ValueError, match="Regression needs pairs"):
        gradient_of(Regression(), Sample(numbers(B, 2)))


def test_dmd2_is_a_term_on_the_critics_features_beside_dmd() -> None:
    torch.manual_seed(0)
    head = DiscriminatorRatio("critic", weight=0.01)
    loss = DMD2(mlp_critic())
    distiller = Distiller(ImageParticles(torch.zeros(B, 2)), ReferenceTeacher(), loss)
    nn.init.normal_(loss.discriminator.head.out.weight)  # type: ignore[union-attr]
    other = WithGAN(dmd(mlp_critic()), head, gan_weight=2 * 3e-3)
    other.bind(distiller.teacher, distiller.timesteps)
    other.load_state_dict(loss.state_dict())
    sample = Sample(numbers(B, 2))
    torch.testing.assert_close(gradient_of(loss, sample), gradient_of(other, sample), rtol=1e-14, atol=1e-15)
    assert loss.discriminator.weight == head.weight
    assert loss.discriminator.source == "critic"


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_decoupled_dmd_with_one_time_and_noise_is_vsd_under_guidance(scale: float) -> None:
    sample = Sample(numbers(B, 2))
    found = gradient_of(DecoupledDMD(mlp_critic()), sample, guidance=CFG(scale))
    torch.testing.assert_close(found, gradient_of(VSD(mlp_critic()), sample, guidance=CFG(scale)), rtol=1e-12, atol=0)


class Fixed(TimestepSampler):
    """The same time for all."""

    def __init__(self, t: float) -> None:
        self.t = t

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        return torch.full((n,), self.t, dtype=torch.float64)


@pytest.mark.parametrize("few", [False, True])
def test_decoupled_guidance_is_that_of_its_own_time_and_noise(few: bool) -> None:
    x, schedule, teacher = numbers(B, 2), FlowSchedule(), ReferenceTeacher(schedule=FlowSchedule())
    sample = Sample(x, segment=segment() if few else None)
    found = gradient_of(DecoupledDMD(mlp_critic(), Fixed(0.4)), sample, guidance=CFG(7.5), schedule=schedule)
    t = torch.full((B,), 0.4 * (0.75 if few else 1.0))
    at = Diffused.diffuse(Sample(x), t, numbers(B, 2, seed=3), schedule)
    part = 6.5 * (teacher(at.x_t, t, ASKED).epsilon - teacher(at.x_t, t).epsilon)
    matching = gradient_of(VSD(mlp_critic()), Sample(x), schedule=schedule)
    torch.testing.assert_close(found, matching + at.sigma[:, None] ** 2 * part)


@pytest.mark.parametrize("kind", ["exponential", "sds"])
def test_add_draws_to_the_clean_prediction(kind: str) -> None:
    x, schedule, teacher = numbers(B, 2), FlowSchedule(), ReferenceTeacher(schedule=FlowSchedule())
    loss = ADDDistillation(discriminator(), 2.5, kind)  # type: ignore[arg-type]
    t = torch.linspace(0.2, 0.8, B)
    adversarial = gradient_of(LADD(discriminator()), Sample(x), schedule=schedule)
    found = gradient_of(loss, Sample(x), schedule=schedule) - 2 * adversarial  # two dimensions
    at = Diffused.diffuse(Sample(x), t, numbers(B, 2, seed=7), schedule)
    moved, f = x.clone().requires_grad_(), teacher(at.x_t, t, ASKED).x0
    c = at.alpha if kind == "exponential" else at.alpha * at.sigma / 2
    (slope,) = torch.autograd.grad(2.5 * (c * (moved - f).square().sum(1)).sum(), moved)
    torch.testing.assert_close(found, slope)
    same = WithGAN(SDS(ADDWeight(2.5, kind)), discriminator(), gan_weight=2.0)  # type: ignore[arg-type]
    assert torch.equal(gradient_of(loss, Sample(x)), gradient_of(same, Sample(x)))


def test_ladd_is_the_adversarial_gradient_through_the_frozen_teacher_at_its_own_times() -> None:
    torch.manual_seed(0)
    network = mlp()
    teacher, ratio = (
        NetworkTeacher(network, schedule=FlowSchedule()),
        DiscriminatorRatio("teacher", "hinge", 8, depths="all"),
    )
    ratio.timesteps = UniformTimesteps(0.3, 0.9)
    distiller = Distiller(ImageParticles(torch.zeros(B, 2)), teacher, LADD(ratio))
    assert isinstance(ratio.head, nn.ModuleList)
    assert len(ratio.head) == 2
    for head in ratio.head:
        nn.init.normal_(head.out.weight)  # type: ignore[union-attr, arg-type]
    x, epsilon = numbers(B, 2), torch.zeros(B, 2)
    step = distiller.evaluate(Sample(x), t=0.5, epsilon=epsilon, rng=rng())
    draws = rng()
    t = UniformTimesteps(0.3, 0.9)(B, teacher.schedule, 0.0, draws)
    noise = torch.randn(B, 2, generator=draws)
    moved = x.clone().requires_grad_()
    x_t = (1 - t)[:, None] * moved + t[:, None] * noise
    at = Diffused(x_t, t, noise, Sample(moved), teacher.schedule)
    logits = ratio.logits(at, teacher)
    (slope,) = torch.autograd.grad(-logits.mean(1).sum(), moved)
    torch.testing.assert_close(step.gradient.g, slope)
    assert torch.equal(step.gradient.diffused.t, t)
    assert "difference_norm" not in step.gradient.report()


def test_each_head_has_its_own_hinge() -> None:
    torch.manual_seed(0)
    ratio, teacher = DiscriminatorRatio(mlp(), "hinge", 8, depths=[0, -1]), ReferenceTeacher()
    for head in ratio.head:  # type: ignore[union-attr]
        nn.init.normal_(head.out.weight, std=3.0)
    fake, real = (
        Diffused.diffuse(Sample(numbers(B, 2, seed=k)), 0.5, numbers(B, 2, seed=k + 1), FlowSchedule()) for k in (0, 2)
    )
    p, q = ratio.logits(real, teacher), ratio.logits(fake, teacher)
    expected = ((1 - p).clamp(min=0) + (1 + q).clamp(min=0)).mean(1)
    torch.testing.assert_close(ratio.pair_error(fake, real, teacher), expected)
    torch.testing.assert_close(ratio.logit(fake, teacher), q.mean(1))
    with pytest.raises(ValueError, match="depths must rise within 2 layers of MLPBackbone"):
        DiscriminatorRatio(mlp(), depths=[-1, 0])


@pytest.mark.parametrize("few", [False, True])
def test_tdm_is_the_gradient_of_its_pseudo_huber_loss_in_the_state(few: bool) -> None:
    x, schedule, position = numbers(B, 2), FlowSchedule(), torch.linspace(0.2, 0.8, B)
    steps = segment() if few else None
    loss, teacher, z = TDM(mlp_critic(), 0.3), ReferenceTeacher(schedule=schedule), numbers(B, 2, seed=7)
    found = gradient_of(loss, Sample(x, segment=steps), position, schedule=schedule)
    moved = x.clone().requires_grad_()
    if steps is None:
        x_s, tau, scale, std = moved, position, 1 - position, position
    else:
        flow = (steps.x_t - moved) / 0.75  # of the input's step
        x_s, tau = steps.x_t - 0.25 * flow, 0.5 + 0.25 * position
        scale = (1 - tau) / 0.5
        std = (tau**2 - (scale * 0.5) ** 2).sqrt()
    x_tau = (scale[:, None] * x_s + std[:, None] * z).detach()
    at = Diffused(x_tau, tau, z, Sample(x, ASKED), schedule)
    with torch.no_grad():
        step = teacher(x_tau, tau, ASKED).epsilon - mlp_critic()(at).epsilon
    distance = (x_s - (x_s - step).detach()).square().sum(1)
    (slope,) = torch.autograd.grad((distance + 0.3**2 * 2).sqrt().sum(), moved)
    torch.testing.assert_close(found, slope)


def test_the_critic_of_tdm_learns_the_score_of_the_diffused_state() -> None:
    """epsilon = -sigma grad log q(x_tau | x_s), whose mean given x_tau is that of the marginal."""
    x, schedule, steps = numbers(B, 2), FlowSchedule(), segment()
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(schedule=schedule), TDM(DiracCritic()))
    at = distiller.diffuse(Sample(x, segment=steps), distiller.timesteps, rng=rng())
    assert at.t.min() > 0.5
    assert at.t.max() < 0.75
    x_s = Prediction(steps.x_t, steps.t, schedule, x0=x).ddim(steps.next_t)
    scale = ((1 - at.t) / 0.5)[:, None]
    variance = at.t[:, None] ** 2 - (0.5 * scale) ** 2
    torch.testing.assert_close(at.epsilon, at.t[:, None] * (at.x_t - scale * x_s) / variance)
    torch.testing.assert_close(at.x_t, at.alpha[:, None] * at.origin + at.sigma[:, None] * at.epsilon)
    assert torch.equal(at.sample.x, x)
    ends = [distiller.diffuse(Sample(x, segment=steps), distiller.timesteps, end, numbers(B, 2)) for end in (0.0, 1.0)]
    assert all(bool(torch.isfinite(each.epsilon).all() and torch.isfinite(each.origin).all()) for each in ends)
    torch.testing.assert_close(ends[0].x_t, x_s)


def test_the_last_step_of_tdm_ends_at_the_clean_sample() -> None:
    x, steps = numbers(B, 2), segment(s=0.0)
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(schedule=FlowSchedule()), TDM(DiracCritic()))
    epsilon = numbers(B, 2, seed=2)
    at = distiller.diffuse(Sample(x, segment=steps), distiller.timesteps, 0.4, epsilon)
    torch.testing.assert_close(at.x_t, 0.7 * x + 0.3 * epsilon)
    torch.testing.assert_close(at.epsilon, epsilon)
    torch.testing.assert_close(at.origin, x)


def test_the_gradient_of_tdm_vanishes_where_student_and_teacher_agree() -> None:
    teacher = NetworkTeacher(mlp(), schedule=FlowSchedule())
    student = OneStepUNet((2,), times=[0.9, 0.6, 0.3], sampling="ode")
    distiller = Distiller(student, teacher, TDM(NetworkCritic()))
    step = distiller.evaluate(Batch(size=B), rng=rng())
    assert float(step.gradient.g.abs().max()) == 0


def test_intra_segment_guidance_draws_to_the_step_through_the_middle() -> None:
    x, steps, schedule = numbers(B, 2), segment(), FlowSchedule()
    sample = Sample(x, segment=steps)
    loss, plain = (SenseFlow(mlp_critic(), discriminator(), segment_weight=w) for w in (0.5, 0.0))
    found = gradient_of(loss, sample, guidance=CFG(3.0), schedule=schedule)
    found = found - gradient_of(plain, sample, guidance=CFG(3.0), schedule=schedule)
    teacher = ReferenceTeacher(schedule=schedule)
    m = 0.55 + 0.15 * torch.rand(B, generator=rng(3))
    with torch.no_grad():
        first = CFG(3.0)(teacher, steps.x_t, steps.t, ASKED).flow
        x_m = steps.x_t + (m - 0.75)[:, None] * first
        target = x_m + (0.5 - m)[:, None] * steps.student(x_m, m, ASKED, schedule).flow
    moved = x.clone().requires_grad_()
    x_s = steps.x_t - 0.25 * (steps.x_t - moved) / 0.75
    (slope,) = torch.autograd.grad(0.5 * ((x_s - target).square() + 1e-6).sqrt().sum(), moved)
    torch.testing.assert_close(found, slope)


def test_senseflow_without_its_additions_is_dmd_with_a_weighted_term() -> None:
    x, schedule = numbers(B, 2), FlowSchedule()
    loss = SenseFlow(mlp_critic(), discriminator(), 0.1, segment_weight=0.0, critic_decay=1.0)
    for steps, scale in ((None, 2.0), (segment(), 2 * 0.25**2)):
        same = WithGAN(dmd(mlp_critic()), discriminator(), gan_weight=0.1 * scale)
        sample = Sample(x, segment=steps)
        expected = gradient_of(same, sample, schedule=schedule)
        torch.testing.assert_close(gradient_of(loss, sample, schedule=schedule), expected, rtol=1e-12, atol=1e-14)


def test_the_critic_follows_the_student_after_a_step() -> None:
    teacher = NetworkTeacher(mlp(), schedule=FlowSchedule())
    loss = SenseFlow(NetworkCritic(), discriminator(), critic_decay=0.9)
    student = OneStepUNet((2,), times=[0.9, 0.5])
    distiller = Distiller(student, teacher, loss)
    for weight in student.parameters():
        nn.init.normal_(weight)
    step = distiller.evaluate(Batch(size=B), rng=rng())
    before = [weight.detach().clone() for weight in distiller.critics[0].parameters()]
    loss.observe(step.gradient.diffused, step.gradient)
    for old, phi, theta in zip(before, distiller.critics[0].parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(phi.detach(), 0.9 * old + 0.1 * theta.detach())
        assert phi.requires_grad
    others = SenseFlow(NetworkCritic(mlp((3,))), discriminator())
    with pytest.raises(ValueError, match="SenseFlow: the critic has no"):
        others.observe(step.gradient.diffused, step.gradient)


def test_steps_in_another_schedule_are_refused() -> None:
    sample = Sample(numbers(B, 2), segment=segment(schedule=EDMSchedule()))
    with pytest.raises(ValueError, match="a student's steps need the teacher's schedule"):
        gradient_of(TDM(mlp_critic()), sample, schedule=FlowSchedule())


class Calls(ReferenceTeacher):
    """A teacher that notes the number of conditions in each of its calls."""

    def __init__(self) -> None:
        super().__init__(schedule=FlowSchedule())
        self.calls: list[int] = []

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        self.calls.append(len(conditions))
        return super().predict_many(x_t, t, conditions)


@pytest.mark.parametrize(
    ("make", "teacher_calls", "critic_calls"),
    [
        (lambda: DMD(mlp_critic()), [2], 1),
        (lambda: DMD2(mlp_critic()), [2], 2),  # the second one ends at the features
        (lambda: DecoupledDMD(mlp_critic()), [1, 2], 1),
        (lambda: ADDDistillation(discriminator()), [2], 0),
        (lambda: LADD(discriminator()), [], 0),
        (lambda: TDM(mlp_critic()), [2], 1),
        (lambda: SenseFlow(mlp_critic(), discriminator()), [2, 2], 1),
    ],
    ids=["DMD", "DMD2", "DecoupledDMD", "ADDDistillation", "LADD", "TDM", "SenseFlow"],
)
def test_networks_are_called_as_often_as_documented(
    make: Callable[[], Objective], teacher_calls: list[int], critic_calls: int
) -> None:
    teacher, loss = Calls(), make()
    distiller = Distiller(OneStepUNet((2,), mlp(), "v", times=[0.9, 0.5]), teacher, loss, CFG(7.5))
    sample = distiller.generate(Batch(Condition(("asked",) * B)), rng())
    counted: list[int] = []
    for critic in distiller.critics:
        network = critic.denoiser.network  # type: ignore[union-attr]
        network.register_forward_pre_hook(lambda module, inputs: counted.append(1))
    distiller.evaluate(sample, rng=rng())
    assert teacher.calls == teacher_calls
    assert len(counted) == critic_calls


def of_shape(shape: tuple[int, ...]) -> dict[str, Callable[[], Objective]]:
    """The objectives, with small networks."""

    def critic() -> NetworkCritic:
        return NetworkCritic(mlp(shape))

    def real() -> DiscriminatorRatio:
        return DiscriminatorRatio(mlp(shape), "hinge", 8, teacher_steps=2)

    return {
        "DMD": lambda: DMD(critic()),
        "DMD2": lambda: DMD2(critic(), DiscriminatorRatio("critic", teacher_steps=2)),
        "DecoupledDMD": lambda: DecoupledDMD(critic(), UniformTimesteps()),
        "ADDDistillation": lambda: ADDDistillation(real()),
        "LADD": lambda: LADD(real()),
        "TDM": lambda: TDM(critic()),
        "SenseFlow": lambda: SenseFlow(critic(), real()),
    }


def generators() -> dict[
    str, tuple[Callable[[], Generator], Callable[[], Teacher], ConditionDataModule, tuple[int, ...]]
]:
    cameras = PromptAndCameras("a toy", views=2)
    few = ConditionDataModule(batch_size=4)
    return {
        "points": (lambda: ImageParticles(numbers(4, 2)), ReferenceTeacher, ConditionDataModule(), (2,)),
        "digits": (lambda: ImageParticles(numbers(2, 1, 8, 8)), Digits, ConditionDataModule(), (1, 8, 8)),
        "nerf": (
            lambda: NeRF(2, resolution=8, samples=8),
            lambda: Gallery(supersample=1, unconditional_views=4),
            cameras,
            (3, 8, 8),
        ),
        "student": (
            lambda: OneStepUNet((2,), mlp(), "v", times=[0.9, 0.5], sampling="ode"),
            ReferenceTeacher,
            few,
            (2,),
        ),
    }


@pytest.mark.parametrize("loss", of_shape((2,)))
@pytest.mark.parametrize("generator", generators())
def test_every_objective_runs_on_every_generator(generator: str, loss: str) -> None:
    make, teacher, data, shape = generators()[generator]
    torch.manual_seed(0)
    module = Distillation(make(), teacher(), of_shape(shape)[loss](), CFG(7.5))
    before = [weight.detach().clone() for weight in module.distiller.generator.parameters()]
    fit(module, 3, data=data)
    after = list(module.distiller.generator.parameters())
    assert all(bool(torch.isfinite(weight).all()) for weight in after)
    # A new discriminator is constant, so that the adversarial term alone moves nothing in its first step.
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
