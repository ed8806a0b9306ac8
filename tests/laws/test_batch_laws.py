"""Laws 2, 11, 13 and 18: parametrizations, particles, normalizers, batches."""

import numpy as np
import pytest
import torch
from scipy.optimize import root
from torch import Tensor

from laws.quadrature import normal, normal_nodes, time_at
from laws.zoo import BATCH_STATISTICS, CAMERAS, CRITICS, GUIDANCES, LOSSES, SCHEDULES, name
from scoredistill import Condition, Distiller, Sample
from scoredistill.critics import ParticleCritic
from scoredistill.diffusion import (
    EDMSchedule,
    FlowSchedule,
    Prediction,
    PredictionType,
    Schedule,
    UniformWeight,
    ViewPerpNeg,
)
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, VSD, DMDNormalizer
from scoredistill.teachers import GaussianMixture
from scoredistill.testing import ReferenceTeacher, check_objective

PREDICTIONS: list[PredictionType] = ["epsilon", "x0", "v", "flow", "score"]


def batch(n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x, epsilon = torch.randn(n, 2, generator=rng), torch.randn(n, 2, generator=rng)
    return x, 0.05 + 0.9 * torch.rand(n, generator=rng), epsilon


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("other", PREDICTIONS)
def test_law_2_predictions_convert_into_one_another(
    kind: PredictionType, other: PredictionType, schedule: Schedule
) -> None:
    x, t, epsilon = batch()
    given = Prediction.truth(kind, x, epsilon, t, schedule)
    expected = Prediction.truth(other, x, epsilon, t, schedule)
    torch.testing.assert_close(given.x_t, expected.x_t)
    torch.testing.assert_close(getattr(given, other), expected.value, rtol=1e-9, atol=1e-9)
    back = Prediction.of(other, getattr(given, other), given.x_t, t, schedule)
    torch.testing.assert_close(getattr(back, kind), given.value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("schedule", [None, FlowSchedule(), EDMSchedule()], ids=name)
def test_law_2_gradient_does_not_depend_on_the_prediction_type(loss, schedule: Schedule | None) -> None:  # type: ignore[no-untyped-def]
    check_objective(loss(), teacher=ReferenceTeacher(schedule=schedule), laws=["prediction_type"])


def test_law_2_flow_velocity() -> None:
    x, t, epsilon = batch()
    teacher = ReferenceTeacher(schedule=FlowSchedule())
    a, s = (1 - t)[:, None], t[:, None]
    predicted = teacher(a * x + s * epsilon, t)
    torch.testing.assert_close(predicted.flow - (epsilon - x), (predicted.epsilon - epsilon) / a)


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (2, 0.86251), (4, 0.97237), (8, 0.99211), (16, 0.99751)])
def test_law_11_particles_settle(n: int, expected: float) -> None:
    z, w = normal_nodes(48)
    t = torch.full((n * len(z),), time_at(0.8))
    start = 0.9 * torch.special.ndtri((torch.arange(n) + 0.5) / n) + 0.1
    distiller = Distiller(ImageParticles(start[:, None]), normal(), VSD(ParticleCritic(), weight=UniformWeight()))

    def drift(particles: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(particles)[:, None]
        every_node = x.repeat_interleave(len(z), dim=0)
        sample = Sample(every_node, population=x)
        g = distiller.gradient(every_node, t=t, epsilon=z.repeat(n)[:, None], sample=sample)
        return (g.view(n, -1) * w).sum(1).numpy()

    particles = start.numpy()
    # Descent finds the stable point, because coinciding particles are a saddle; root() refines it.
    for _ in range(100 * n):
        particles = particles - drift(particles)
    settled = root(drift, particles, tol=1e-12).x
    assert np.abs(drift(settled)).max() < 1e-10
    assert settled.std() == pytest.approx(expected, abs=6e-6)


def test_law_11_one_particle_is_sds() -> None:
    x, t, epsilon = batch(1)
    vsd, sds = (
        Distiller(ImageParticles(x), ReferenceTeacher(), loss).gradient(x, t=t, epsilon=epsilon)
        for loss in (VSD(ParticleCritic()), SDS())
    )
    torch.testing.assert_close(vsd, sds, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c", [0.01, 7.0])
def test_law_13_dmd_normalizer_is_scale_invariant(c: float) -> None:
    x, _, epsilon = batch()
    schedule = EDMSchedule(1e-4, 1e4)
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])

    def gradient(scale: float) -> Tensor:
        t = schedule.t_at_log_snr(torch.full((len(x),), 2.0) - 2 * torch.tensor(scale).log())
        loss = SDS(weight=UniformWeight(), normalizer=DMDNormalizer())
        teacher = GaussianMixture(scale * means, 0.4 * scale, schedule=schedule)
        return Distiller(ImageParticles(x), teacher, loss).gradient(scale * x, t=t, epsilon=epsilon)

    torch.testing.assert_close(gradient(c), gradient(1.0), rtol=1e-9, atol=1e-12)


def test_law_13_gradient_is_finite_where_x_is_the_teachers_x0() -> None:
    x = torch.full((3, 2), 0.25)
    distiller = Distiller(ImageParticles(x), GaussianMixture(x[:1], 0.0), SDS(normalizer=DMDNormalizer()))
    g = distiller.gradient(x, t=torch.tensor([0.1, 0.5, 0.9]), epsilon=torch.randn(3, 2))
    assert bool(torch.isfinite(g).all())
    assert g.abs().max() < 1e-9


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("guidance", GUIDANCES.values(), ids=GUIDANCES.keys())
def test_law_18_a_batch_is_its_samples_one_by_one(loss, guidance) -> None:  # type: ignore[no-untyped-def]
    check_objective(loss(), guidance=guidance(), laws=["one_by_one"])


def test_law_18_holds_where_each_sample_has_a_camera_and_its_own_negatives() -> None:
    condition = Condition(prompt="asked", camera=CAMERAS)
    check_objective(SDS(), guidance=ViewPerpNeg(7.5), condition=condition, laws=["one_by_one"])


@pytest.mark.parametrize("loss", BATCH_STATISTICS.values(), ids=BATCH_STATISTICS.keys())
def test_law_18_a_batch_statistic_breaks_it(loss) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError, match=r"breaks the law 'one_by_one' .*largest deviation 0\.\d|deviation [1-9]"):
        check_objective(loss(), laws=["one_by_one"])


@pytest.mark.parametrize("critic", CRITICS.values(), ids=CRITICS.keys())
def test_surrogate_has_the_gradient_over_the_batch(critic) -> None:  # type: ignore[no-untyped-def]
    x, t, epsilon = batch()
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(), VSD(critic()))
    distiller.generator_loss(t=t, epsilon=epsilon).backward()
    g = distiller.gradient(x, t=t, epsilon=epsilon)
    torch.testing.assert_close(distiller.generator.values.grad, g / len(x))
    assert all(p.grad is None for p in distiller.loss.parameters())
