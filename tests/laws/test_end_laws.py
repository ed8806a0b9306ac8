"""The ends of time: every quantity is finite on the whole range of t in both precisions, or refused by an error that
says at which t, under which schedule, and what to change.
"""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from laws.zoo import (
    CRITICS,
    LOSSES,
    REFUSES_AN_END,
    SCHEDULES,
    TIMESTEPS,
    WEIGHTS,
    WITHOUT_TERMINAL_SIGNAL,
    discriminator,
    mlp,
    name,
    training_loss,
)
from scoredistill import Batch, Condition, Distiller
from scoredistill.critics import NetworkCritic, ParticleCritic
from scoredistill.diffusion import (
    CosineSchedule,
    DivergenceWeight,
    DreamTimeTimesteps,
    FlowSchedule,
    FlowWeight,
    Guidance,
    Prediction,
    PredictionType,
    Schedule,
    TimestepSampler,
    TimeWeight,
    X0Weight,
)
from scoredistill.diffusion.schedule import VANISHING
from scoredistill.diffusion.timesteps import TimeBins
from scoredistill.generators import ImageParticles, OneStepUNet
from scoredistill.generators.one_step import SampledTeacher
from scoredistill.losses import SDS, VSD, DMDNormalizer, PosteriorWeight
from scoredistill.networks import Denoiser, MLPBackbone, Parameterization
from scoredistill.ratios import ExactRatio
from scoredistill.teachers import Empirical, Gallery, GaussianMixture, NetworkTeacher, Teacher
from scoredistill.testing import ReferenceTeacher, check_objective, check_schedule
from scoredistill.testing.law import ends
from scoredistill.types import Diffused, Sample

ALL = [*SCHEDULES, WITHOUT_TERMINAL_SIGNAL]
KINDS: list[PredictionType] = ["epsilon", "x0", "v", "flow", "score"]
DTYPES = [torch.float32, torch.float64]
REFUSED = r"has no value at t = \S+, where \w+Schedule has no (noise|signal): (draw|choose) "

every_schedule = pytest.mark.parametrize("schedule", ALL, ids=name)
both_precisions = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def vanishing(schedule: Schedule, t: Tensor) -> tuple[bool, bool]:
    """Whether noise, and whether signal, vanishes at one of the times."""
    return bool((schedule.sigma(t) < VANISHING).any()), bool((schedule.alpha(t) < VANISHING).any())


def require_finite_or_refused(ask: Callable[[], Tensor], refused: bool, dtype: torch.dtype | None = None) -> None:
    if refused:
        with pytest.raises(ValueError, match=REFUSED):
            ask()
        return
    value = ask()
    assert bool(torch.isfinite(value).all()), value
    assert dtype is None or value.dtype == dtype


@every_schedule
def test_a_schedule_is_finite_and_inverted_up_to_its_ends(schedule: Schedule) -> None:
    check_schedule(schedule)
    assert bool((torch.stack(schedule(ends(torch.float32))).sum(0) > 0.5).all())


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()], ids=name)
@both_precisions
def test_signal_and_noise_are_exactly_zero_at_their_ends(schedule: Schedule, dtype: torch.dtype) -> None:
    t = torch.tensor([0.0, 1.0], dtype=dtype)
    assert (schedule.alpha(t)[1], schedule.sigma(t)[0]) == (0, 0)


@every_schedule
@both_precisions
@pytest.mark.parametrize("kind", KINDS)
def test_predictions(kind: PredictionType, schedule: Schedule, dtype: torch.dtype) -> None:
    x, epsilon = torch.randn(1, 2, dtype=dtype), torch.randn(1, 2, dtype=dtype)
    for t, other in product(ends(dtype).split(1), KINDS):
        clean, pure = vanishing(schedule, t)
        x_t = schedule.alpha(t) * x + schedule.sigma(t) * epsilon
        given = Prediction.of(kind, torch.randn(1, 2, dtype=dtype), x_t, t, schedule)
        # A clean x_t has no noise and pure noise has no sample; a score divides epsilon by zero noise.
        undefined = clean and (other == "score" or kind == "x0")
        undefined |= pure and kind in ("epsilon", "score") and other not in ("epsilon", "score")
        require_finite_or_refused(
            lambda given=given, other=other: getattr(given, other), undefined and kind != other, dtype
        )
        require_finite_or_refused(lambda given=given: given.signal, False, dtype)


@every_schedule
@both_precisions
@pytest.mark.parametrize("kind", KINDS)
def test_training_targets(kind: PredictionType, schedule: Schedule, dtype: torch.dtype) -> None:
    x, epsilon = torch.randn(1, 2, dtype=dtype), torch.randn(1, 2, dtype=dtype)
    for t in ends(dtype).split(1):
        refused = kind == "score" and vanishing(schedule, t)[0]
        require_finite_or_refused(lambda t=t: Prediction.truth(kind, x, epsilon, t, schedule).value, refused, dtype)


@every_schedule
@both_precisions
@pytest.mark.parametrize("weight", WEIGHTS, ids=name)
def test_weights(weight: TimeWeight, schedule: Schedule, dtype: torch.dtype) -> None:
    for t in ends(dtype).split(1):
        clean, pure = vanishing(schedule, t)
        if isinstance(weight, PosteriorWeight) and bool(t <= weight.interval):
            with pytest.raises(ValueError, match="draw t above it"):
                weight(t, schedule)
            continue
        refused = isinstance(weight, DivergenceWeight) and clean
        refused |= isinstance(weight, X0Weight | FlowWeight | PosteriorWeight) and pure
        require_finite_or_refused(lambda t=t: weight(t, schedule), refused, dtype)


def test_the_lists_hold_every_weight_and_sampler() -> None:
    package = {kind for kind in _subclasses(TimeWeight) if kind.__module__.startswith("scoredistill")}
    assert package == {type(weight) for weight in WEIGHTS}
    package = {kind for kind in _subclasses(TimestepSampler) if kind.__module__.startswith("scoredistill")}
    assert package == {type(sampler) for sampler in TIMESTEPS}


def _subclasses(kind: type) -> set[type]:
    return {each for child in kind.__subclasses__() for each in {child, *_subclasses(child)}}


@every_schedule
@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)
def test_samplers(timesteps: TimestepSampler, schedule: Schedule) -> None:
    reaches_one = isinstance(timesteps, DreamTimeTimesteps) and timesteps.high == 1
    refused = reaches_one and vanishing(schedule, torch.ones(1))[1]
    for progress in (0.0, 0.5, 1.0):
        require_finite_or_refused(lambda p=progress: timesteps(100, schedule, p), refused, torch.float64)
    if not refused:
        t = timesteps(100, schedule)
        assert bool(((t >= 0) & (t <= 1)).all())
        assert bool(torch.isfinite(TimeBins.quantiles(timesteps, schedule, 4).edges).all())


MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
FULL = torch.tensor([[0.5, 0.1], [0.1, 0.3]]).repeat(3, 1, 1)
MIXTURES: dict[str, Callable[[Schedule], GaussianMixture]] = {
    "isotropic": lambda schedule: GaussianMixture(MEANS, 0.4, schedule=schedule),
    "of several widths": lambda schedule: GaussianMixture(MEANS, torch.tensor([0.1, 0.4, 0.2]), schedule=schedule),
    "diagonal": lambda schedule: GaussianMixture(MEANS, 0.1 + MEANS.abs(), schedule=schedule),
    "full": lambda schedule: GaussianMixture(MEANS, covariances=FULL, schedule=schedule),
    "low rank": lambda schedule: GaussianMixture(MEANS, 0.2, factors=MEANS[:, None], schedule=schedule),
    "points": lambda schedule: GaussianMixture(MEANS, schedule=schedule),
    "flat": lambda schedule: GaussianMixture(MEANS, factors=MEANS[:, None], schedule=schedule),
    "data": lambda schedule: Empirical(MEANS, schedule=schedule),
    "widened data": lambda schedule: Empirical(MEANS, std=0.1, schedule=schedule),
}
POINT_MASSES = ("points", "flat", "data")


@every_schedule
@both_precisions
@pytest.mark.parametrize("key", MIXTURES)
def test_exact_teachers(key: str, schedule: Schedule, dtype: torch.dtype) -> None:
    teacher = MIXTURES[key](schedule).to(dtype)
    for t in ends(dtype).split(1):
        x_t = schedule.alpha(t) * MEANS[:1].to(dtype) + schedule.sigma(t) * torch.randn(1, 2, dtype=dtype)
        clean, pure = vanishing(schedule, t)
        refused = clean and key in POINT_MASSES
        require_finite_or_refused(lambda t=t, x_t=x_t: teacher(x_t, t).epsilon, refused, dtype)
        require_finite_or_refused(lambda t=t, x_t=x_t: teacher.log_prob(x_t, t), refused, dtype)
        require_finite_or_refused(lambda t=t, x_t=x_t: teacher(x_t, t).x0, refused or pure, dtype)


@pytest.mark.parametrize("key", [key for key in MIXTURES if key not in POINT_MASSES])
def test_without_noise_a_mixtures_epsilon_is_zero_and_its_density_the_clean_one(key: str) -> None:
    teacher, x = MIXTURES[key](CosineSchedule()), torch.randn(5, 2)
    assert torch.equal(teacher(x, 0.0).epsilon, torch.zeros(5, 2))
    torch.testing.assert_close(teacher.log_prob(x, 0.0), teacher.log_prob(x, 1e-9))


@pytest.mark.parametrize("pixel_std", [0.0, 0.02])
@both_precisions
def test_the_gallery(pixel_std: float, dtype: torch.dtype) -> None:
    teacher = Gallery(pixel_std=pixel_std, supersample=1, unconditional_views=4)
    for t in ends(dtype).split(1):
        refused = pixel_std == 0 and vanishing(teacher.schedule, t)[0]
        x_t = 0.1 * torch.randn(1, 3, 8, 8, dtype=dtype)
        require_finite_or_refused(lambda t=t, x_t=x_t: teacher(x_t, t, Condition("a red mug")).epsilon, refused, dtype)


NETWORKS: list[Parameterization] = ["edm", *KINDS]


@every_schedule
@both_precisions
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_as_teachers_and_critics(kind: Parameterization, schedule: Schedule, dtype: torch.dtype) -> None:
    teacher = NetworkTeacher(mlp(), prediction=kind, schedule=schedule).to(dtype)
    critic = NetworkCritic(mlp(), kind).to(dtype)
    x, epsilon = torch.randn(1, 2, dtype=dtype), torch.randn(1, 2, dtype=dtype)
    for t in ends(dtype).split(1):
        clean, pure = vanishing(schedule, t)
        at = Diffused.diffuse(Sample(x), t, epsilon, schedule)
        for predicted in (teacher(at.x_t, t), critic(at)):
            require_finite_or_refused(lambda p=predicted: p.epsilon, clean and kind == "x0", dtype)
            require_finite_or_refused(lambda p=predicted: p.x0, pure and kind in ("epsilon", "score"), dtype)
        require_finite_or_refused(lambda at=at: training_loss(critic, at), clean and kind == "score", dtype)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_edm_networks_output_is_the_noise_at_one_end_and_the_sample_at_the_other(t: float) -> None:
    """F = -epsilon without noise, and x0 / d without signal: the limits of the parameterization."""
    d, schedule, x_t = 0.5, CosineSchedule(), torch.randn(4, 2)
    denoiser = Denoiser(mlp(), "edm", sigma_data=d)
    at = torch.full((4,), t)
    # c_in x_t / alpha tends to x_t / d and to x_t.
    output = denoiser.network(x_t / d if t == 0 else x_t, schedule.log_snr(at), None)
    found = denoiser(x_t, at, None, schedule)
    torch.testing.assert_close(found.epsilon, -output if t == 0 else x_t)
    torch.testing.assert_close(found.x0, x_t if t == 0 else d * output)


@every_schedule
@pytest.mark.parametrize("key", LOSSES)
def test_losses(key: str, schedule: Schedule) -> None:
    teacher, may_refuse = ReferenceTeacher(schedule=schedule), key in REFUSES_AN_END
    check_objective(LOSSES[key](), teacher=teacher, may_refuse=may_refuse, laws=["ends_of_time"])


@every_schedule
@both_precisions
@pytest.mark.parametrize("critic", CRITICS)
def test_critics_and_ratios(critic: str, schedule: Schedule, dtype: torch.dtype) -> None:
    t = ends(dtype)
    x, epsilon = torch.randn(len(t), 2), torch.randn(len(t), 2)
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(schedule=schedule), VSD(CRITICS[critic]())).to(dtype)
    diffused = Diffused.diffuse(Sample(x.to(dtype)), t, epsilon.to(dtype), schedule)
    error = distiller.critic_error(diffused) if distiller.critics else torch.zeros(())
    assert bool(torch.isfinite(error).all())
    ratios = [discriminator().to(dtype)]
    ratios += [ExactRatio()] if critic in ("particles", "exact") else []
    for ratio in ratios:
        log_r = ratio(diffused, distiller.teacher, distiller.loss.critic)
        assert bool(torch.isfinite(log_r).all()), log_r


@pytest.mark.parametrize("t", [0.0, torch.finfo(torch.float32).tiny])
@both_precisions
def test_a_critic_of_point_masses_is_refused_without_noise(t: float, dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, dtype=dtype)
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(), VSD(ParticleCritic())).to(dtype)
    with pytest.raises(ValueError, match=r"ParticleCritic whose bandwidth is 0 " + REFUSED + r".*bandwidth above 0"):
        distiller.gradient(x, t=t, epsilon=torch.randn_like(x))
    distiller.timesteps = TIMESTEPS[1]
    with pytest.raises(ValueError, match="bandwidth above 0"):
        distiller.evaluate()


@every_schedule
@both_precisions
def test_the_dmd_normalizer_has_a_limit_at_both_ends(schedule: Schedule, dtype: torch.dtype) -> None:
    t, floor = torch.tensor([0.0, 1.0], dtype=dtype), 1e-3
    x, epsilon = torch.randn(2, 2, dtype=dtype), torch.randn(2, 2, dtype=dtype)
    diffused = Diffused.diffuse(Sample(x), t, epsilon, schedule)
    factor = DMDNormalizer(floor)(diffused, MIXTURES["isotropic"](schedule).to(dtype)(diffused.x_t, t))
    assert bool(torch.isfinite(factor).all())
    clean, pure = vanishing(schedule, t)
    assert not clean or factor[0] == 0
    if pure:  # the correction is negligible beside the noise, and the floor is what remains
        assert float(factor[1]) == pytest.approx(1 / floor, rel=8 * torch.finfo(dtype).eps)


@every_schedule
@both_precisions
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("times", [(1.0,), (1.0, 0.5)], ids=str)
def test_students(times: tuple[float, ...], kind: Parameterization, schedule: Schedule, dtype: torch.dtype) -> None:
    teacher = GaussianMixture(MEANS, 0.4, schedule=schedule)

    def generated() -> Tensor:
        student = OneStepUNet((2,), mlp(), kind, sigma_data=2.0, times=times)
        return Distiller(student, teacher, SDS()).to(dtype).generate(Batch(size=4)).x

    refused = kind in ("epsilon", "score") and vanishing(schedule, torch.ones(1, dtype=dtype))[1]
    require_finite_or_refused(generated, refused, dtype)


def test_the_default_student_of_the_default_mixture() -> None:
    torch.set_default_dtype(torch.float32)
    student = OneStepUNet((2,), MLPBackbone((2,)), sigma_data=2.0)
    Distiller(student, GaussianMixture(torch.zeros(1, 2), 1.0), SDS())
    assert bool(torch.isfinite(student(Batch(size=4)).x).all())


@every_schedule
@both_precisions
@pytest.mark.parametrize("teacher", [lambda s: MIXTURES["points"](s), lambda s: NetworkTeacher(mlp(), schedule=s)])
def test_sampled_teachers(teacher: Callable[[Schedule], Teacher], schedule: Schedule, dtype: torch.dtype) -> None:
    x = SampledTeacher(teacher(schedule).to(dtype), (2,), steps=5)(Batch(size=3)).x
    assert x.dtype == dtype
    assert bool(torch.isfinite(x).all())


class Dividing(SDS):
    """A user's loss whose baseline is not finite without signal, and that does not raise an error."""

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return super().baseline(diffused, teacher, guidance) / diffused.schedule.alpha(diffused.t)[:, None]


def test_a_users_nonfinite_gradient_at_an_end_is_refused() -> None:
    x = torch.randn(3, 2)
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(), Dividing())
    assert bool(torch.isfinite(distiller.gradient(x, t=0.99, epsilon=torch.randn(3, 2))).all())
    with pytest.raises(ValueError, match="no value at an end of CosineSchedule, t = 0 or 1: draw t between them"):
        distiller.gradient(x, t=1.0, epsilon=torch.randn(3, 2))
