"""Distributions of the noise time, against their definitions."""

import math

import pytest
import torch
from laws.zoo import SCHEDULES, name
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

from scoredistill.annealing import Annealed, Knot, Piecewise
from scoredistill.diffusion import (
    CosineSchedule,
    DreamTimeTimesteps,
    EDMSchedule,
    FlowSchedule,
    LogitNormalTimesteps,
    LogNormalTimesteps,
    NoiseLevelTimesteps,
    PolynomialTimesteps,
    Schedule,
    ShiftedTimesteps,
    StudentTTimesteps,
    TimestepSampler,
    TwoStageTimesteps,
    UniformTimesteps,
)
from scoredistill.testing import check_timesteps

SAMPLERS = [
    UniformTimesteps(),
    TwoStageTimesteps(),
    LogNormalTimesteps(),
    NoiseLevelTimesteps(3.0, spread=2.0),
    DreamTimeTimesteps(),
]
RANDOM = SAMPLERS[:-1]
COSINE = CosineSchedule()


def draw(sampler: TimestepSampler, n: int, progress: float = 0.0, seed: int = 0, schedule: Schedule = COSINE):  # type: ignore[no-untyped-def]
    return sampler(n, schedule, progress, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_times_are_float64_within_the_unit_interval(sampler: TimestepSampler, schedule: Schedule) -> None:
    check_timesteps(sampler, schedules=[schedule], may_refuse=False)


@pytest.mark.parametrize("sampler", RANDOM, ids=name)
def test_times_are_a_function_of_the_generator(sampler: TimestepSampler) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(draw(sampler, 8), draw(sampler, 8))
    assert not torch.equal(draw(sampler, 8), draw(sampler, 8, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert sampler(8, COSINE).shape == (8,)
    assert not torch.equal(torch.get_rng_state(), state)  # without a generator it is torch's own


def test_uniform_fills_its_range() -> None:
    t = draw(UniformTimesteps(0.1, 0.7), 20_000)
    assert 0.1 <= t.min() < 0.101
    assert 0.699 < t.max() < 0.7
    assert float(t.mean()) == pytest.approx(0.4, abs=3 * 0.6 / math.sqrt(12 * len(t)))


def test_uniform_follows_schedules_of_its_ends() -> None:
    sampler = UniformTimesteps(Piecewise([Knot(0, 0.5), Knot(1, 0.1)]), Piecewise([Knot(0, 0.9), Knot(1, 0.3)]))
    t = draw(sampler, 2000, progress=0.5)
    assert 0.3 <= t.min() < 0.31
    assert 0.59 < t.max() <= 0.6


@pytest.mark.parametrize(
    ("ends", "progress"), [((0.6, 0.5), 0), ((0.1, Piecewise([Knot(0, 0.9, "hold"), Knot(0.25, 0.05)])), 0.25)]
)
def test_uniform_refuses_ends_that_cross_at_any_time(ends: tuple[Annealed, Annealed], progress: float) -> None:
    with pytest.raises(ValueError, match=rf"need low <= high, got .* at progress {progress:.3f}"):
        UniformTimesteps(*ends)


@pytest.mark.parametrize(("progress", "high"), [(0.0, 0.98), (0.1999, 0.98), (0.2, 0.5), (1.0, 0.5)])
def test_two_stages(progress: float, high: float) -> None:
    t = draw(TwoStageTimesteps(), 2000, progress)
    assert 0.02 <= t.min() < 0.03
    assert high - 0.01 < t.max() <= high


@pytest.mark.parametrize("schedule", [COSINE, SCHEDULES[3], SCHEDULES[5]], ids=name)
def test_log_normal_has_its_moments(schedule: Schedule) -> None:
    n, mean, std = 20_000, -0.4, 0.8
    log_ratio = -0.5 * schedule.log_snr(draw(LogNormalTimesteps(mean, std), n, schedule=schedule))
    assert float(log_ratio.mean()) == pytest.approx(mean, abs=3 * std / n**0.5)
    assert float(log_ratio.var()) == pytest.approx(std**2, abs=3 * std**2 * (2 / n) ** 0.5)
    z = (log_ratio - mean) / std
    assert float((z**4).mean()) == pytest.approx(3, abs=3 * (96 / n) ** 0.5)


def test_log_snr_anneals_sigma_over_alpha() -> None:
    sampler = NoiseLevelTimesteps(Piecewise([Knot(0, 60, "geometric"), Knot(0.7, 3, "geometric"), Knot(1, 0.1)]))
    for progress, ratio in [(0.0, 60.0), (0.35, math.sqrt(180)), (0.7, 3.0), (0.85, math.sqrt(0.3)), (1.0, 0.1)]:
        t = draw(sampler, 3, progress)
        torch.testing.assert_close(COSINE.sigma(t) / COSINE.alpha(t), torch.full((3,), ratio), rtol=1e-9, atol=0)


def test_log_snr_spreads_log_uniformly() -> None:
    t = draw(NoiseLevelTimesteps(3.0, spread=2.0), 20_000)
    u = torch.log(COSINE.sigma(t) / COSINE.alpha(t) / 3) / math.log(2)
    assert -1 <= u.min() < -0.999
    assert 0.999 < u.max() <= 1
    assert float(u.mean()) == pytest.approx(0, abs=3 / math.sqrt(3 * len(u)))
    with pytest.raises(ValueError, match="spread must be at least 1"):
        NoiseLevelTimesteps(1.0, spread=0.5)


def test_dreamtime_falls_and_solves_its_equation() -> None:
    sampler = DreamTimeTimesteps(mean=0.5, std=0.2, low=0.05, high=0.9)

    def weight(t: float) -> float:
        return math.tan(0.5 * math.pi * t) * math.exp(-((t - 0.5) ** 2) / (2 * 0.2**2))

    whole = quad(weight, 0.05, 0.9)[0]
    progress = torch.linspace(0, 1, 21)
    t = torch.cat([draw(sampler, 1, float(p)) for p in progress])
    solved = torch.tensor([quad(weight, float(time), 0.9)[0] / whole for time in t])
    assert bool((t.diff() < 0).all())
    torch.testing.assert_close(t[[0, -1]], torch.tensor([0.9, 0.05]))
    torch.testing.assert_close(solved, progress, atol=2e-6, rtol=0)  # a trapezoid of 1000 intervals
    assert len(draw(sampler, 5, 0.4).unique()) == 1


@pytest.mark.parametrize(
    ("said", "made"),
    [
        ("noise_to_signal must be above 0, got 0", lambda: NoiseLevelTimesteps(0)),
        (
            "noise_to_signal must be above 0, got -1",
            lambda: NoiseLevelTimesteps(Piecewise([Knot(0, 3.0), Knot(1, -1.0)])),
        ),
        ("spread must be at least 1, got nan", lambda: NoiseLevelTimesteps(1, math.nan)),
        ("std must be above 0, got 0", lambda: LogNormalTimesteps(std=0)),
        ("std must be above 0, got -2", lambda: DreamTimeTimesteps(std=-2)),
        (r"need low < high, got low 0\.5 and high 0\.4", lambda: DreamTimeTimesteps(low=0.5, high=0.4)),
        (r"high must lie in \[0, 1\], got 1\.5", lambda: DreamTimeTimesteps(low=0.5, high=1.5)),
    ],
)
def test_impossible_settings_are_refused(said, made) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        made()


LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


@pytest.mark.parametrize(
    ("timesteps", "schedule", "quantiles"),
    [
        (ShiftedTimesteps(3.0, 0.0, 1.0), FlowSchedule(), [3 * u / (1 + 2 * u) for u in LEVELS]),
        (LogitNormalTimesteps(0.5, 2.0), FlowSchedule(), expit(0.5 + 2 * norm.ppf(LEVELS)).tolist()),
        (StudentTTimesteps(0.3, 0.7, 3.0), FlowSchedule(), expit(0.3 + 0.7 * student.ppf(LEVELS, 3)).tolist()),
        (
            PolynomialTimesteps(0.01, 50.0, 7.0), EDMSchedule(0.01, 50.0, 7.0), LEVELS,
        ),
    ],
    ids=["shifted", "logit-normal", "Student's t", "polynomial"],
)  # fmt: skip
def test_times_have_their_distribution(timesteps, schedule, quantiles) -> None:  # type: ignore[no-untyped-def]
    n = 20_000
    t = timesteps(n, schedule, rng=torch.Generator().manual_seed(0))
    for level, quantile in zip(LEVELS, quantiles, strict=True):
        share = float((t <= quantile).double().mean())
        # Three standard errors of a binomial share.
        assert share == pytest.approx(level, abs=3 * (level * (1 - level) / n) ** 0.5)
