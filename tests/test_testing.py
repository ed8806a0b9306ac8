"""The kit of laws names the violated law, the deviation and its place."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scoredistill.critics import Critic, DiracCritic, NetworkCritic, TrainedPart
from scoredistill.diffusion import (
    CFG,
    CosineSchedule,
    Guidance,
    Prediction,
    Schedule,
    TimestepSampler,
    TimeWeight,
    UniformTimesteps,
)
from scoredistill.divergences import Divergence, ForwardKL, ReverseKL
from scoredistill.generators import Generator, ImageParticles
from scoredistill.losses import SDS, VSD, ScalarDistillation, ScoreDistillation
from scoredistill.networks import MLPBackbone
from scoredistill.ratios import DensityRatio
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.testing import (
    ReferenceTeacher,
    check_critic,
    check_divergence,
    check_generator,
    check_guidance,
    check_objective,
    check_ratio,
    check_schedule,
    check_teacher,
    check_time_weight,
    check_timesteps,
)
from scoredistill.types import Sample, right_pad_dims


def require_broken(law: str, check, *arguments, **settings) -> str:  # type: ignore[no-untyped-def]
    """The message of the check, which must name the class and the law."""
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **settings)
    text = str(caught.value)
    assert text.startswith(f"{type(arguments[0]).__name__} breaks the law '{law}' ("), text
    return text


class BatchMean(SDS):
    def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
        return super().baseline(diffused, teacher, guidance).mean(0, keepdim=True).expand_as(diffused.x_t)


class ReadsTheValue(SDS):
    def gradient(self, diffused, teacher, guidance=None):  # type: ignore[no-untyped-def]
        value = teacher(diffused.x_t, diffused.t, diffused.condition).value
        return replace(super().gradient(diffused, teacher, guidance), g=value - diffused.epsilon)


class Infinite(SDS):
    def gradient(self, diffused, teacher, guidance=None):  # type: ignore[no-untyped-def]
        found = super().gradient(diffused, teacher, guidance)
        return replace(found, g=found.g / right_pad_dims(diffused.sigma, found.g))


class Forgetful(SDS):
    def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
        return torch.randn_like(diffused.x_t)


class Column(SDS):
    def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
        return super().baseline(diffused, teacher, guidance)[:, :1]


class Double(SDS):
    def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
        return super().baseline(diffused, teacher, guidance).double()


class Attached(ScalarDistillation):
    def scalar(self, diffused, target, baseline, reweighting):  # type: ignore[no-untyped-def]
        return (target.x0 - baseline.x0).flatten(1).square().sum(1)

    def gradient(self, diffused, teacher, guidance=None):  # type: ignore[no-untyped-def]
        found = super().gradient(diffused, teacher, guidance)
        return replace(found, g=found.g * nn.Parameter(torch.ones(())).to(found.g))


class Counting(SDS):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().baseline(diffused, teacher, guidance)


class Untrained(VSD):
    def __init__(self) -> None:
        super().__init__(DiracCritic())
        self.factor = nn.Parameter(torch.ones(()))


class SummedError(NetworkCritic):
    def error(self, predicted, diffused):  # type: ignore[no-untyped-def]
        return super().error(predicted, diffused).mean()


class Climbing(NetworkCritic):
    def error(self, predicted, diffused):  # type: ignore[no-untyped-def]
        error = super().error(predicted, diffused)
        return 2 * error.detach() - error


@pytest.mark.parametrize(
    ("loss", "law", "said"),
    [
        (BatchMean(), "one_by_one", "g of single samples, against the batch's, is"),
        (ReadsTheValue(), "prediction_type", "g for a teacher that predicts x0 in place of epsilon is"),
        (Infinite(), "ends_of_time", "g in torch.float32 at t = 0.0 is"),
        (Forgetful(), "determined_by_rng", "draws from torch's global random numbers; draw from rng"),
        (Column(), "shape_and_type", "the baseline of Column has shape (6, 1); it must be (6, 2)"),
        (Double(), "shape_and_type", "g of torch.float32 samples is torch.float64"),
        (Attached(DiracCritic()), "no_graph", "g requires a gradient"),
        (Counting(), "no_side_effects", "changes Distiller.loss.calls, which is 1 and must be 0"),
        (Untrained(), "shape_and_type", "Untrained: factor would never be trained"),
        (VSD(SummedError()), "trained_parts", "training_error of SummedError has shape () and must"),
        (VSD(Climbing()), "trained_parts", "a step along its gradient changes Climbing's training_error from"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_broken_objectives(loss: SDS, law: str, said: str) -> None:
    assert said in require_broken(law, check_objective, loss)


def test_deviation_tolerance_and_place_are_reported() -> None:
    text = require_broken("one_by_one", check_objective, BatchMean())
    assert "at index [" in text
    assert "largest deviation " in text
    assert ", tolerance " in text


def test_a_law_can_be_skipped_by_name_with_a_reason() -> None:
    check_objective(BatchMean(), skip={"one_by_one": "the baseline is the mean of the batch"})
    with pytest.raises(ValueError, match=r"there is no law 'one_by_on'\. Did you mean 'one_by_one'"):
        check_objective(BatchMean(), skip={"one_by_on": "a statistic"})
    with pytest.raises(ValueError, match="give the reason why 'one_by_one' does not apply"):
        check_objective(BatchMean(), skip={"one_by_one": " "})
    check_objective(BatchMean(), laws=["surrogate", "no_graph"])


def test_a_check_has_no_side_effects() -> None:
    torch.set_default_dtype(torch.float32)
    loss, teacher = VSD(NetworkCritic(MLPBackbone((2,), hidden=8))), ReferenceTeacher()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    state, flags = torch.get_rng_state(), [p.requires_grad for p in teacher.parameters()]
    check_objective(loss, teacher=teacher)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    assert [p.requires_grad for p in teacher.parameters()] == flags


def test_refusals_at_the_ends_of_time_can_be_allowed() -> None:
    class Refusing(SDS):
        def baseline(self, diffused, teacher, guidance):  # type: ignore[no-untyped-def]
            if diffused.at_end:
                raise ValueError("no ends")
            return super().baseline(diffused, teacher, guidance)

    check_objective(Refusing())
    text = require_broken("ends_of_time", check_objective, Refusing(), may_refuse=False)
    assert "at t = 0.0 is refused: no ends" in text


def test_an_objective_of_pictures_under_guidance() -> None:
    check_objective(SDS(), shape=(3, 4, 4), guidance=CFG(7.5))


class WrongScale(Critic):
    def forward(self, diffused):  # type: ignore[no-untyped-def]
        return Prediction(
            diffused.x_t, diffused.t, diffused.schedule, epsilon=2 * diffused.x_t * diffused.sigma[:, None]
        )

    def log_prob(self, diffused):  # type: ignore[no-untyped-def]
        return -0.5 * diffused.x_t.square().sum(1)


class Noisy(DiracCritic):
    def forward(self, diffused):  # type: ignore[no-untyped-def]
        return Prediction(diffused.x_t, diffused.t, diffused.schedule, epsilon=torch.randn_like(diffused.x_t))


class OwnSchedule(DiracCritic):
    def forward(self, diffused):  # type: ignore[no-untyped-def]
        return Prediction(diffused.x_t, diffused.t, Reversed(), epsilon=diffused.epsilon)


class Wide(DiracCritic):
    def forward(self, diffused):  # type: ignore[no-untyped-def]
        return super().forward(replace(diffused, x_t=diffused.x_t[:, :1], epsilon=diffused.epsilon[:, :1]))


class Reversed(CosineSchedule):
    def alpha(self, t: float | Tensor) -> Tensor:
        return super().alpha(1 - torch.as_tensor(t))


@pytest.mark.parametrize(
    ("critic", "law"),
    [
        (WrongScale(), "score_of_log_prob"),
        (Noisy(), "no_side_effects"),
        (OwnSchedule(), "uses_the_schedule"),
        (Wide(), "shape_and_type"),
        (Climbing(), "trainable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_broken_critics(critic: Critic, law: str) -> None:
    require_broken(law, check_critic, critic)


class MeanRatio(DensityRatio):
    def forward(self, diffused, teacher, critic):  # type: ignore[no-untyped-def]
        log_p = teacher.log_prob(diffused.x_t, diffused.t, diffused.condition)
        return log_p - log_p.mean()


class OneNumber(DensityRatio):
    def forward(self, diffused, teacher, critic):  # type: ignore[no-untyped-def]
        return diffused.x_t.sum()


class NoParameters(MeanRatio, TrainedPart):
    def forward(self, diffused, teacher, critic):  # type: ignore[no-untyped-def]
        return teacher.log_prob(diffused.x_t, diffused.t, diffused.condition)

    def training_error(self, diffused, teacher):  # type: ignore[no-untyped-def]
        return diffused.x_t.sum(1)


@pytest.mark.parametrize(
    ("ratio", "law"),
    [
        (MeanRatio(), "one_by_one"),
        (OneNumber(), "shape_and_type"),
        (NoParameters(), "trainable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_broken_ratios(ratio: DensityRatio, law: str) -> None:
    require_broken(law, check_ratio, ratio)


class WrongWeight(ForwardKL):
    def h_from_log(self, log_r: Tensor) -> Tensor:
        return 2 * log_r.exp()


class Shifted(ForwardKL):
    def f(self, r: Tensor) -> Tensor:
        return super().f(r) + 0.5


class Concave(ForwardKL):
    def f(self, r: Tensor) -> Tensor:
        return -super().f(r)


class Linear(ReverseKL):
    def f(self, r: Tensor) -> Tensor:
        return r - 1


class Overflowing(ForwardKL):
    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.exp(4 * log_r) / torch.exp(3 * log_r)


class NotConstant(ForwardKL):
    constant = True


class TwoFormulas(ForwardKL):
    def h(self, r: Tensor) -> Tensor:
        return r

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return (2 * log_r).exp()


@pytest.mark.parametrize(
    ("divergence", "law", "said"),
    [
        (WrongWeight(), "h_is_r_squared_times_the_second_derivative", "h at 61 ratios from 1e-3 to 1e3 is"),
        (Shifted(), "zero_at_one", "f(1) is 0.5 and must be 0 at index [0]: largest deviation 0.5, tolerance 1e-15"),
        (Concave(), "convex", "it must be at least 0"),
        (Linear(), "convex", "f''(1) = 0; it must be above 0"),
        (Overflowing(), "finite", "in torch.float32 is"),
        (NotConstant(), "constant_means_constant", "h, which is marked as constant,"),
        (TwoFormulas(), "h_from_log_is_h", "h_from_log is"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Divergence) else "",
)
def test_broken_divergences(divergence: Divergence, law: str, said: str) -> None:
    assert said in require_broken(law, check_divergence, divergence)


class Backwards(Schedule):
    def alpha(self, t: float | Tensor) -> Tensor:
        return torch.as_tensor(t, dtype=torch.float64 if not isinstance(t, Tensor) else t.dtype)

    def sigma(self, t: float | Tensor) -> Tensor:
        return 1 - self.alpha(t)

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(0.5 * log_snr)


class Negative(CosineSchedule):
    def alpha(self, t: float | Tensor) -> Tensor:
        return torch.cos(0.6 * math.pi * (t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)))


class NotInverted(CosineSchedule):
    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return super().t_at_log_snr(log_snr + 0.01)


class FloatOnly(CosineSchedule):
    def sigma(self, t: float | Tensor) -> Tensor:
        return super().sigma(t).double()


@pytest.mark.parametrize(
    ("schedule", "law"),
    [
        (Backwards(), "noise_grows"),
        (Negative(), "not_negative"),
        (NotInverted(), "inverse"),
        (FloatOnly(), "shape_and_type"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Schedule) else "",
)
def test_broken_schedules(schedule: Schedule, law: str) -> None:
    require_broken(law, check_schedule, schedule)


class NegativeWeight(TimeWeight):
    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return schedule.log_snr(t)


class Singular(TimeWeight):
    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return 1 / schedule.sigma(t)


class Normalized(TimeWeight):
    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return schedule.sigma(t) / schedule.sigma(t).mean()


def test_broken_weights() -> None:
    require_broken("shape_and_type", check_time_weight, NegativeWeight())
    text = require_broken("ends_of_time", check_time_weight, Singular())
    assert "w under CosineSchedule in torch.float32 at t = 0.0 is inf" in text
    require_broken("one_by_one", check_time_weight, Normalized())


class Beyond(UniformTimesteps):
    def __call__(self, n, schedule, progress=0.0, rng=None):  # type: ignore[no-untyped-def]
        return 1 + super().__call__(n, schedule, progress, rng)


class Global(TimestepSampler):
    def __call__(self, n, schedule, progress=0.0, rng=None):  # type: ignore[no-untyped-def]
        return torch.rand(n, dtype=torch.float64)


def test_broken_samplers() -> None:
    require_broken("in_range", check_timesteps, Beyond())
    require_broken("determined_by_rng", check_timesteps, Global())


class Halved(CFG):
    def combine(self, predictions, condition):  # type: ignore[no-untyped-def]
        guided = super().combine(predictions, condition)
        return guided.with_epsilon(0.5 * guided.epsilon)


class Rescaled(CFG):
    def combine(self, predictions, condition):  # type: ignore[no-untyped-def]
        guided = super().combine(predictions, condition)
        return guided.with_epsilon(guided.epsilon / guided.epsilon.std() * predictions[0].epsilon.std())


class OfValues(CFG):
    def combine(self, predictions, condition):  # type: ignore[no-untyped-def]
        return Prediction(predictions[0].x_t, predictions[0].t, predictions[0].schedule, epsilon=predictions[0].value)


def test_broken_guidance() -> None:
    require_broken("no_difference_no_guidance", check_guidance, Halved(7.5))
    require_broken("one_by_one", check_guidance, Rescaled(7.5))
    require_broken("prediction_type", check_guidance, OfValues(7.5))
    require_broken("neutral_is_the_conditional_model", check_guidance, CFG(7.5), neutral=CFG(2.0))


class WrongScore(GaussianMixture):
    def log_prob(self, x_t, t, condition=None):  # type: ignore[no-untyped-def]
        return 2 * super().log_prob(x_t, t, condition)


class OneMissing(GaussianMixture):
    def predict_many(self, x_t, t, conditions):  # type: ignore[no-untyped-def]
        return super().predict_many(x_t, t, conditions)[:-1]


class Whitened(GaussianMixture):
    def forward(self, x_t, t, condition=None):  # type: ignore[no-untyped-def]
        return super().forward(x_t - x_t.mean(0), t, condition).with_epsilon(x_t - x_t.mean(0))


class Awake(GaussianMixture):
    def train(self, mode=True):  # type: ignore[no-untyped-def]
        return nn.Module.train(self, mode)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (WrongScore, "score_of_log_prob"),
        (OneMissing, "predict_many_is_single_calls"),
        (Whitened, "shape_and_type"),
        (Awake, "stays_in_evaluation_mode"),
    ],
)
def test_broken_teachers(kind: type[Teacher], law: str) -> None:
    require_broken(law, check_teacher, kind(torch.randn(3, 2), 0.5))  # type: ignore[call-arg, arg-type]


class FromNoise(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.shift, self.unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        return Sample(batch.noise((2,), rng) + self.shift)


class Unsplit(FromNoise):
    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        z = torch.randn(batch.rows, 2, generator=rng)
        return Sample(z + self.shift + self.unused)


class Unseeded(FromNoise):
    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        return Sample(torch.randn(batch.rows, 2) + self.shift)


class Coupled(ImageParticles):
    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        sample = super().forward(batch, rng)
        return replace(sample, x=sample.x - sample.x.mean(0))


class Shared(ImageParticles):
    def __init__(self, init: Tensor) -> None:
        super().__init__(init)
        self.color = nn.Parameter(torch.zeros(2))

    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        sample = super().forward(batch, rng)
        return replace(sample, x=sample.x + self.color)


class Miscounted(ImageParticles):
    def forward(self, batch, rng=None):  # type: ignore[no-untyped-def]
        return replace(super().forward(batch, rng), particle=torch.arange(2))


@pytest.mark.parametrize(
    ("generator", "law", "said"),
    [
        (FromNoise(), "gradient_reaches_every_parameter", "no gradient reaches unused"),
        (Unsplit(), "micro_batches", "x of two parts, against the batch's, is"),
        (Unseeded(), "determined_by_rng", "draws from torch's global random numbers"),
        (Coupled(torch.randn(3, 2)), "particles_are_independent", "x of particle 0 alone, against that among 3, is"),
        (Shared(torch.randn(3, 2)), "particles_are_independent", "color of Shared has no row for each particle"),
        (Miscounted(torch.randn(3, 2)), "rows", "particle has 2 rows, x 3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_broken_generators(generator: Generator, law: str, said: str) -> None:
    assert said in require_broken(law, check_generator, generator)


def test_a_correct_class_passes() -> None:
    class HalfControl(ScoreDistillation):
        def baseline(self, diffused, teacher, guidance: Guidance) -> Tensor:  # type: ignore[no-untyped-def]
            return 0.5 * diffused.epsilon

    check_objective(HalfControl())
