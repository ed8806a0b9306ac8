"""What a user's objectives can do: another x_t, further conditions, scalars, trained parts, pictures."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from laws.zoo import mlp, mlp_critic
from torch import Tensor, nn
from training.test_module import fit

from scoredistill import Batch, Condition, Distiller
from scoredistill.critics import Critic, ExactCritic, ParticleCritic, TrainedPart
from scoredistill.diffusion import CFG, CosineSchedule, Guidance, Prediction
from scoredistill.divergences import ForwardKL
from scoredistill.generators import ImageParticles
from scoredistill.losses import (
    CSD,
    DDS,
    SDS,
    VSD,
    FDistill,
    Gradient,
    Objective,
    Reweighting,
    ScalarDistillation,
    ScoreDistillation,
    WithGAN,
)
from scoredistill.ratios import ExactRatio, TimeBinNormalizer
from scoredistill.teachers import GaussianMixture, NetworkTeacher, Teacher
from scoredistill.testing import ReferenceTeacher
from scoredistill.training import ConditionDataModule, Distillation
from scoredistill.types import Diffused, Sample

B = 5


class Counting(ReferenceTeacher):
    """A teacher that records the number of rows of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        self.calls.append(len(conditions))
        return super().predict_many(x_t, t, conditions)


def called(loss: Objective, guidance: Guidance | None) -> list[int]:
    """The number of conditions in each call of the teacher in one step."""
    teacher = Counting()
    distiller = Distiller(ImageParticles(torch.randn(B, 2)), teacher, loss, guidance)
    distiller.evaluate(Batch(Condition("asked", negative_prompt="left")))
    return teacher.calls


@pytest.mark.parametrize(
    ("make", "guided", "plain"),
    [
        (SDS, [2], [1]),
        (lambda: VSD(ParticleCritic()), [2], [1]),
        (CSD, [2], [2]),
        (lambda: DDS(torch.zeros(1, 2), "up"), [2, 2], [1, 1]),
    ],
    ids=["SDS", "VSD", "CSD", "DDS"],
)
def test_the_teacher_is_called_once_per_x_t_and_condition(make, guided: list[int], plain: list[int]) -> None:  # type: ignore[no-untyped-def]
    assert called(make(), CFG(7.5)) == guided
    assert called(make(), None) == plain


class Counted(CosineSchedule):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def alpha(self, t: float | Tensor) -> Tensor:
        self.calls.append("alpha")
        return super().alpha(t)

    def sigma(self, t: float | Tensor) -> Tensor:
        self.calls.append("sigma")
        return super().sigma(t)


def test_a_step_computes_alpha_and_sigma_once() -> None:
    schedule = Counted()
    teacher = GaussianMixture(torch.randn(3, 2), 0.5, schedule=schedule)
    distiller = Distiller(ImageParticles(torch.randn(B, 2)), teacher, VSD(ParticleCritic()))
    schedule.calls.clear()
    distiller.evaluate()
    assert sorted(schedule.calls) == ["alpha", "sigma"]


class Inverted(SDS):
    """SDS with the noise of one unconditional DDIM step from time t / 2."""

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        before = diffused.at(diffused.t / 2)
        epsilon = teacher(before.x_t, before.t, None).epsilon
        return diffused.at(diffused.t, epsilon)


def test_a_loss_may_choose_its_own_x_t() -> None:
    x, epsilon, t = torch.randn(B, 2), torch.randn(B, 2), torch.full((B,), 0.6)
    teacher, condition = ReferenceTeacher(), Condition("asked")
    g = Distiller(ImageParticles(x), teacher, Inverted()).gradient(x, t=t, epsilon=epsilon, condition=condition)
    before = Diffused.diffuse(Sample(x), t / 2, epsilon, teacher.schedule)
    found = teacher(before.x_t, before.t, None).epsilon
    at = Diffused.diffuse(Sample(x), t, found, teacher.schedule)
    expected = at.sigma[:, None] ** 2 * (teacher(at.x_t, t, condition).epsilon - found)
    torch.testing.assert_close(g, expected)
    plain = Distiller(ImageParticles(x), teacher, SDS()).gradient(x, t=t, epsilon=epsilon, condition=condition)
    assert (g - plain).abs().max() > 1e-3


def test_statistics_are_of_the_samples_at_which_the_gradient_was_evaluated() -> None:
    class Halved(FDistill):
        def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
            return diffused.at(diffused.t / 2)

    seen: list[Tensor] = []

    class Binned(TimeBinNormalizer):
        def observe(self, log_r: Tensor, diffused: Diffused) -> None:
            seen.append(diffused.t)

    loss = Halved(ForwardKL(), ParticleCritic(0.2), ExactRatio(), [Binned(2)])
    module = Distillation(ImageParticles(torch.randn(B, 2)), GaussianMixture(torch.randn(3, 2), 0.5), loss)
    fit(module, 1, data=ConditionDataModule())
    assert seen[0].max() < 0.5


class Fisher(ScalarDistillation):
    """|epsilon_critic - epsilon_teacher|^2 / 2, through both."""

    def scalar(self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting) -> Tensor:
        return 0.5 * (baseline.epsilon - target.epsilon).square().flatten(1).sum(1)


@pytest.mark.parametrize("network", [False, True])
def test_a_scalar_is_differentiated_through_teacher_and_critic(network: bool) -> None:
    x, epsilon, t = torch.randn(B, 2), torch.randn(B, 2), torch.linspace(0.2, 0.8, B)
    teacher: Teacher = NetworkTeacher(mlp()) if network else GaussianMixture(torch.randn(3, 2), 0.5)
    critic: Critic = mlp_critic() if network else ExactCritic(GaussianMixture(torch.randn(2, 2), 0.7))
    for module in (teacher, critic):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    distiller = Distiller(ImageParticles(x), teacher, Fisher(critic))

    def value(moved: Tensor) -> Tensor:
        at = Diffused.diffuse(Sample(moved), t, epsilon, teacher.schedule)
        return distiller.loss.scalar(at, teacher(at.x_t, t), critic(at), Reweighting(t))

    g = distiller.gradient(x, t=t, epsilon=epsilon)
    step = 1e-5
    for k in range(2):
        shift = step * torch.eye(2)[k]
        slope = ((value(x + shift) - value(x - shift)) / (2 * step)).detach()
        torch.testing.assert_close(g[:, k], slope, rtol=1e-6, atol=1e-7)
    assert not g.requires_grad
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *critic.parameters()))


class Bias(TrainedPart):
    """A model of the teacher's prediction at the samples, which needs the teacher in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        with torch.no_grad():
            target = teacher(diffused.x_t, diffused.t, diffused.condition).epsilon
        return (self.layer(diffused.x_t) - target).square().mean(1)


class Learned(ScoreDistillation):
    def __init__(self) -> None:
        super().__init__()
        self.bias = Bias()

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return self.bias.layer(diffused.x_t)


def test_any_submodule_with_a_training_error_is_trained_with_the_teacher() -> None:
    loss, teacher = Learned(), GaussianMixture(torch.randn(3, 2), 0.5)
    module = Distillation(ImageParticles(torch.randn(B, 2)), teacher, loss)
    assert module.distiller.critics == [loss.bias]
    before, rng = loss.bias.layer.weight.detach().clone(), torch.Generator().manual_seed(0)
    start = module.distiller.critic_loss(rng=rng.manual_seed(0)).item()
    fit(module, 60, data=ConditionDataModule())
    assert not torch.equal(loss.bias.layer.weight, before)
    assert module.distiller.critic_loss(rng=rng.manual_seed(0)).item() < start


class Encoding(GaussianMixture):
    """A teacher of latents, which are half of a picture's channels' sum."""

    def encode(self, x: Tensor) -> Tensor:
        return x if x.shape[1] == 1 else x.sum(1, keepdim=True) / 2


class WithPicture(Objective):
    """An objective plus the gradient of |picture - 1|^2 / 2 with respect to the rendered picture."""

    def __init__(self, loss: Objective) -> None:
        super().__init__()
        self.loss = loss

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        picture = diffused.sample.picture
        assert picture is not None
        return replace(self.loss.gradient(diffused, teacher, guidance), picture=picture.detach() - 1)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_may_have_a_gradient_of_the_rendered_picture(accumulate: int) -> None:
    from training.test_module import Table

    from scoredistill.training import UpdatePlan

    class Pictures(Table):
        def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
            made = super().forward(batch, rng)
            return replace(made, x=made.x[:, :, None, None].expand(-1, 2, 2, 2), regularizer=None)

    teacher = Encoding(torch.zeros(1, 1, 2, 2), 1.0)
    module = Distillation(Pictures(), teacher, WithPicture(SDS()), plan=UpdatePlan(accumulate=accumulate), seed=3)
    found: dict[str, Tensor] = {}
    original = module.reduce_and_clip

    def keep(*arguments, **settings):  # type: ignore[no-untyped-def]
        found["g"] = module.distiller.generator.values.grad.clone()
        return original(*arguments, **settings)

    module.reduce_and_clip = keep  # type: ignore[method-assign]
    fit(module, 1, data=ConditionDataModule(labels=[0, 1, 2, 3, 4, 5]))
    generator = Pictures()
    batch = Batch(Condition(label=torch.arange(6)))
    picture = generator(batch).x
    (0.5 * (picture - 1).square().sum() / 6).backward()
    added = found["g"] - generator.values.grad
    plain = Distillation(Pictures(), teacher, SDS(), plan=UpdatePlan(accumulate=accumulate), seed=3)
    original = plain.reduce_and_clip

    def keep_plain(*arguments, **settings):  # type: ignore[no-untyped-def]
        found["plain"] = plain.distiller.generator.values.grad.clone()
        return original(*arguments, **settings)

    plain.reduce_and_clip = keep_plain  # type: ignore[method-assign]
    fit(plain, 1, data=ConditionDataModule(labels=[0, 1, 2, 3, 4, 5]))
    torch.testing.assert_close(added, found["plain"])


def test_samples_carry_data_progress_and_random_numbers() -> None:
    seen: list[Diffused] = []

    class Looking(SDS):
        def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
            seen.append(diffused)
            return super().baseline(diffused, teacher, guidance)

    distiller = Distiller(ImageParticles(torch.randn(B, 2)), GaussianMixture(torch.zeros(1, 2), 1.0), Looking())
    rng, data = torch.Generator().manual_seed(0), torch.randn(B, 2)
    distiller.evaluate(Batch(data=data, data_label=torch.arange(B)), progress=0.25, rng=rng)
    assert seen[0].progress == 0.25
    assert seen[0].rng is rng
    assert seen[0].sample.data is data
    assert seen[0].sample.picture is None


def test_an_added_term_wraps_an_objective() -> None:
    assert not issubclass(WithGAN, ScoreDistillation)
    assert issubclass(ScoreDistillation, Objective)


def test_a_scalar_without_a_gradient_at_an_end_of_time_is_refused() -> None:
    class Steep(ScalarDistillation):
        def scalar(
            self, diffused: Diffused, target: Prediction, baseline: Prediction, reweighting: Reweighting
        ) -> Tensor:
            return (target.signal / diffused.alpha[:, None]).square().sum(1)

    teacher = GaussianMixture(torch.randn(3, 2), 0.5)
    distiller = Distiller(ImageParticles(torch.randn(B, 2)), teacher, Steep(ParticleCritic()))
    with pytest.raises(ValueError, match="the gradient has no value at an end of CosineSchedule"):
        distiller.evaluate(t=1.0)
