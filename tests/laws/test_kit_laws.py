"""All laws of `scoredistill.testing`, over all classes of the package."""

from collections.abc import Callable

import pytest
import torch

from laws.zoo import (
    BATCH_STATISTICS,
    CAMERAS,
    CRITICS,
    GUIDANCES,
    LOSSES,
    REFUSES_AN_END,
    SCHEDULES,
    TIMESTEPS,
    WEIGHTS,
    WITHOUT_TERMINAL_SIGNAL,
    discriminator,
    mlp,
    name,
)
from scoredistill import Condition
from scoredistill.critics import Critic, NetworkCritic, ParticleCritic
from scoredistill.diffusion import (
    CFG,
    CFGZeroStar,
    Guidance,
    RescaledCFG,
    Schedule,
    TimestepSampler,
    TimeWeight,
    ViewPerpNeg,
)
from scoredistill.generators import DMTet, Generator, ImageParticles, NeRF, OneStepUNet
from scoredistill.generators.nerf import (
    Emptiness,
    Entropy,
    Opacity,
    Orientation,
    Regularizer,
    Sparsity,
    TotalVariation,
    ZVariance,
)
from scoredistill.losses import Objective
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import DensityRatio, DiscriminatorRatio, ExactRatio
from scoredistill.teachers import Empirical, Gallery, GaussianMixture, NetworkTeacher, Teacher
from scoredistill.testing import (
    ReferenceTeacher,
    WithPrediction,
    check_critic,
    check_generator,
    check_guidance,
    check_objective,
    check_ratio,
    check_schedule,
    check_teacher,
    check_time_weight,
    check_timesteps,
)

ALL_SCHEDULES = [*SCHEDULES, WITHOUT_TERMINAL_SIGNAL]
LABELS = Condition(label=torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize("loss", (LOSSES | BATCH_STATISTICS).values(), ids=(LOSSES | BATCH_STATISTICS).keys())
def test_objectives(loss: Callable[[], Objective], request: pytest.FixtureRequest) -> None:
    key = request.node.callspec.id
    skip = {"one_by_one": "a batch statistic"} if key in BATCH_STATISTICS else None
    check_objective(loss(), may_refuse=key in REFUSES_AN_END, skip=skip)


@pytest.mark.parametrize("critic", CRITICS.values(), ids=CRITICS.keys())
@pytest.mark.parametrize("condition", [None, Condition("asked", camera=CAMERAS)], ids=["unconditional", "cameras"])
def test_critics(critic: Callable[[], Critic], condition: Condition | None) -> None:
    check_critic(critic(), condition=condition)


def test_critics_that_start_as_the_teacher_or_are_point_masses() -> None:
    check_critic(NetworkCritic())
    check_critic(ParticleCritic())


RATIOS: dict[str, tuple[DensityRatio, Critic | None]] = {
    "exact": (ExactRatio(), ParticleCritic(0.1)),
    "exact of its own q": (ExactRatio(q=ParticleCritic(0.1)), NetworkCritic()),
    "discriminator": (discriminator(), None),
    "on the teacher": (DiscriminatorRatio("teacher", r1=0.1), None),
    "on the critic": (DiscriminatorRatio("critic", objective="least_squares", r1=0.1, r1_step=0.1), NetworkCritic()),
}


@pytest.mark.parametrize("key", RATIOS)
def test_ratios(key: str) -> None:
    ratio, critic = RATIOS[key]
    skip = {"one_by_one": "the particles of q are the batch"} if key == "exact of its own q" else None
    check_ratio(ratio, critic=critic, skip=skip)


@pytest.mark.parametrize("schedule", ALL_SCHEDULES, ids=name)
def test_schedules(schedule: Schedule) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize("weight", WEIGHTS, ids=name)
def test_weights(weight: TimeWeight) -> None:
    check_time_weight(weight, schedules=ALL_SCHEDULES)


@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=name)
def test_timesteps(timesteps: TimestepSampler) -> None:
    check_timesteps(timesteps, schedules=ALL_SCHEDULES)


@pytest.mark.parametrize("guidance", GUIDANCES.values(), ids=GUIDANCES.keys())
def test_guidances(guidance: Callable[[], Guidance]) -> None:
    made = guidance()
    # v and flow of an epsilon prediction are undefined without signal.
    in_velocity = isinstance(made, RescaledCFG | CFGZeroStar)
    check_guidance(made, neutral=CFG() if isinstance(made, CFG) else None, may_refuse=in_velocity)


def test_guidance_by_the_camera() -> None:
    check_guidance(ViewPerpNeg(7.5), condition=Condition("asked", camera=CAMERAS), may_refuse=False)


MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
TEACHERS: dict[str, tuple[Callable[[], Teacher], tuple[int, ...], Condition | None]] = {
    "mixture": (lambda: GaussianMixture(MEANS, 0.4, labels=torch.tensor([0, 1])), (2,), LABELS),
    "data": (lambda: Empirical(MEANS), (2,), None),
    "network": (lambda: NetworkTeacher(mlp()), (2,), None),
    "gallery": (lambda: Gallery(supersample=1, unconditional_views=4), (3, 8, 8), Condition("a red mug")),
    "reference": (ReferenceTeacher, (2,), Condition(("a", "b", "c", "d"), label=LABELS.label)),
    "converted": (lambda: WithPrediction(ReferenceTeacher((1, 2, 2)), "v"), (1, 2, 2), None),
}


@pytest.mark.parametrize("key", TEACHERS)
def test_teachers(key: str) -> None:
    make, shape, condition = TEACHERS[key]
    check_teacher(make(), shape=shape, condition=condition)


GENERATORS: dict[str, Callable[[], Generator]] = {
    "particles": lambda: ImageParticles(torch.randn(5, 2)),
    "labels": lambda: ImageParticles(torch.randn(4, 2), labels=[0, 0, 1, 1]),
    "nerf": lambda: NeRF(particles=2, resolution=8, samples=8),
    "dmtet": lambda: DMTet(particles=2, resolution=8),
    "student": lambda: OneStepUNet((2,)),
    "student of two steps": lambda: OneStepUNet((2,), mlp(), times=(1.0, 0.5), population=8),
    "student by LoRA": lambda: OneStepUNet((2,), lora=LoRA(2, targets=["layers.1"])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("key", GENERATORS)
def test_generators(key: str, training: bool, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    skip = {"starts_from_its_like": "the teacher's frozen weights are shared"} if key == "student by LoRA" else None
    check_generator(GENERATORS[key]().train(training), teacher=ReferenceTeacher(), skip=skip)


REGULARIZERS = [Emptiness, Entropy, Opacity, Orientation, Sparsity, TotalVariation, ZVariance]


@pytest.mark.parametrize("kind", REGULARIZERS)
def test_regularized_radiance_fields(kind: type[Regularizer]) -> None:
    skip = {"micro_batches": "a mean over the rays that hit something"} if kind is ZVariance else None
    check_generator(NeRF(particles=2, resolution=8, samples=8, regularizers=[kind(1.0)]), skip=skip)


def test_particles_that_take_part_by_chance() -> None:
    generator = ImageParticles(torch.randn(5, 2), per_step=3)
    with pytest.raises(AssertionError, match=r"the law 'particles_are_independent' .*cannot be split over processes"):
        check_generator(generator)
    check_generator(generator, skip={"particles_are_independent": "particles take part by chance"})


def test_a_network_of_pictures() -> None:
    check_critic(NetworkCritic(MLPBackbone((1, 4, 4), hidden=8)), shape=(1, 4, 4))
