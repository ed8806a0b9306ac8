"""The trunk of the losses: reports of a step, nesting of losses, and the normalizer."""

import math

import pytest
import torch
from torch import Tensor

from scoredistill import Distiller
from scoredistill.critics import DiracCritic, ParticleCritic
from scoredistill.diffusion import CosineSchedule, EDMSchedule, Prediction, UniformWeight
from scoredistill.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, VSD, DMDNormalizer, FDistill, Gradient, Reweighting, ScoreDistillation
from scoredistill.ratios import ClampRatio, ExactRatio, TimeBinNormalizer
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.types import Diffused, Sample

SCHEDULE = CosineSchedule()


def made_of(reweighting: Reweighting, g: Tensor | None = None) -> Gradient:
    n = len(reweighting.h)
    x_t = torch.zeros(n, 2, dtype=reweighting.h.dtype)
    target = Prediction(x_t, torch.full((n,), 0.5).to(x_t), SCHEDULE, epsilon=torch.ones_like(x_t))
    at = Diffused(x_t, target.t, torch.zeros_like(x_t), Sample(x_t), SCHEDULE)
    return Gradient(x_t if g is None else g, at, target, -2 * torch.ones_like(x_t), reweighting, torch.ones(n))


def test_a_constant_h_reports_norms_only() -> None:
    g = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    report = made_of(Reweighting(torch.ones(2)), g).report()
    assert {key: float(value) for key, value in report.items()} == {
        "gradient_norm": 3.0,
        "difference_norm": pytest.approx(3 * math.sqrt(2)),
    }


def test_report_has_quantiles_of_the_raw_ratio_and_the_share_that_was_changed() -> None:
    raw = torch.arange(101.0)
    report = made_of(Reweighting(torch.ones(101), raw, raw.clamp(10, 79.5))).report()
    metrics = [float(report[key]) for key in ("log_r/q05", "log_r/q50", "log_r/q95", "log_r/changed")]
    assert metrics == pytest.approx([5.0, 50.0, 95.0, 31 / 101])


@pytest.mark.parametrize(
    ("h", "mean", "size"),
    [([1.0, 1.0, 1.0, 1.0], 1.0, 1.0), ([4.0, 0.0, 0.0, 0.0], 1.0, 0.25), ([1.0, 2.0, 3.0, 0.0], 1.5, 36 / 56),
     ([0.0, 0.0], 0.0, 0.0)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_effective_sample_size(h: list[float], mean: float, size: float, dtype: torch.dtype) -> None:
    weights = torch.tensor(h, dtype=dtype)
    report = made_of(Reweighting(weights, torch.zeros_like(weights), torch.zeros_like(weights))).report()
    assert float(report["h/mean"]) == pytest.approx(mean)
    assert float(report["h/effective_sample_size"]) == pytest.approx(size)


def test_sds_vsd_and_f_distill_are_nested() -> None:
    assert issubclass(SDS, VSD)
    assert issubclass(VSD, FDistill)
    assert issubclass(FDistill, ScoreDistillation)
    assert isinstance(SDS().critic, DiracCritic)
    assert isinstance(VSD(ParticleCritic()).divergence, ReverseKL)
    assert SDS.gradient is ScoreDistillation.gradient
    assert SDS.baseline is FDistill.baseline


def test_a_divergence_with_a_weight_needs_a_ratio() -> None:
    with pytest.raises(ValueError, match="FDistill with JensenShannon needs a density ratio: set ratio, to ExactRatio"):
        FDistill(JensenShannon(), ParticleCritic())


class Squared(Divergence):
    """A user's divergence with h = r^2 / 2."""

    def f(self, r: Tensor) -> Tensor:
        return (r - 1) ** 2 / 4

    def h_from_log(self, log_r: Tensor) -> Tensor:
        return torch.exp(2 * log_r) / 2


def setting(n: int = 5) -> tuple[Diffused, Teacher]:
    sample = Sample(torch.randn(n, 2))
    diffused = Diffused.diffuse(sample, torch.linspace(0.2, 0.8, n), torch.randn(n, 2), SCHEDULE)
    return diffused, GaussianMixture(torch.randn(3, 2), 0.4)


def test_the_gradient_is_made_of_its_parts() -> None:
    diffused, teacher = setting()
    critic = ParticleCritic(0.3)
    gradient = FDistill(Squared(), critic, ExactRatio(), [ClampRatio(0.5, 2.0)]).gradient(diffused, teacher)
    log_r = ExactRatio()(diffused, teacher, critic)
    expected_h = log_r.exp().clamp(0.5, 2.0) ** 2 / 2
    torch.testing.assert_close(gradient.reweighting.h, expected_h)
    torch.testing.assert_close(gradient.reweighting.log_r, log_r)
    difference = teacher(diffused.x_t, diffused.t).epsilon - critic(diffused).epsilon
    sigma_squared = SCHEDULE.sigma(diffused.t) ** 2
    torch.testing.assert_close(gradient.g, (sigma_squared * expected_h)[:, None] * difference)


def test_observing_passes_each_normalizer_what_the_ones_before_left() -> None:
    diffused, teacher = setting()
    first, second = TimeBinNormalizer(1), TimeBinNormalizer(1)
    loss = FDistill(ForwardKL(), ParticleCritic(0.3), ExactRatio(), [first, ClampRatio(0.5, 2.0), second])
    gradient = loss.gradient(diffused, teacher)
    assert (first.count.item(), second.count.item()) == (0, 0)
    loss.observe(diffused, gradient)
    r = gradient.reweighting.log_r.exp()
    torch.testing.assert_close(first.log_mean.exp()[0], r.mean())
    torch.testing.assert_close(second.log_mean.exp()[0], (r / r.mean()).clamp(0.5, 2.0).mean())


@pytest.mark.parametrize("loss", [SDS(), VSD(ParticleCritic())], ids=["SDS", "VSD"])
def test_losses_without_statistics_observe_nothing(loss: ScoreDistillation) -> None:
    diffused, teacher = setting()
    Distiller(ImageParticles(diffused.sample.x), teacher, loss)
    loss.observe(diffused, loss.gradient(diffused, teacher))
    assert list(loss.buffers()) == []


def test_dmd_normalizer_is_its_equation() -> None:
    diffused, teacher = setting()
    diffused = Diffused.diffuse(diffused.sample, diffused.t, diffused.epsilon, schedule := EDMSchedule())
    teacher = GaussianMixture(torch.randn(3, 2), 0.4, schedule=schedule)
    gradient = SDS(UniformWeight(), DMDNormalizer())
    Distiller(ImageParticles(diffused.sample.x), teacher, gradient)
    g = gradient.gradient(diffused, teacher).g
    # Equation 8 of DMD: the difference of clean predictions over the teacher's mean absolute correction.
    x0, x = teacher(diffused.x_t, diffused.t).x0, diffused.sample.x
    torch.testing.assert_close(g, (x - x0) / (x - x0).abs().mean(1, keepdim=True), rtol=1e-8, atol=1e-10)


def test_dmd_normalizer_has_a_floor() -> None:
    x = torch.full((1, 2), 2.0)
    diffused = Diffused.diffuse(Sample(x), torch.full((1,), 0.5), torch.zeros(1, 2), SCHEDULE)
    target = Prediction(diffused.x_t, diffused.t, SCHEDULE, x0=x)
    torch.testing.assert_close(DMDNormalizer(0.01)(diffused, target), torch.tensor([1 / (0.01 * (2 + 1))]))
    with pytest.raises(ValueError, match="floor must be above 0, got 0"):
        DMDNormalizer(0)
