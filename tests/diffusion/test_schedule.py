"""Noise schedules: their ends, their inverses, and the discrete schedules that they interpolate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws.zoo import SCHEDULES, name

from scoredistill.diffusion import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.testing import check_schedule

VP = [CosineSchedule(), LinearSchedule(), LinearSchedule(1e-4, 0.02, scaled=False)]
INSIDE = st.floats(1e-3, 1 - 1e-3)


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()], ids=name)
def test_ends_are_clean_and_pure_noise(schedule: Schedule) -> None:
    ends = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(schedule.alpha(ends), torch.tensor([1.0, 0.0]), atol=1e-16, rtol=0)
    torch.testing.assert_close(schedule.sigma(ends), torch.tensor([0.0, 1.0]), atol=0, rtol=0)


@pytest.mark.parametrize("schedule", VP[1:], ids=["scaled", "linear"])
def test_linear_schedule_begins_clean_and_ends_almost_at_pure_noise(schedule: Schedule) -> None:
    alpha, sigma = schedule.alpha(torch.tensor([0.0, 1.0])), schedule.sigma(torch.tensor([0.0, 1.0]))
    assert (alpha[0], sigma[0]) == (1, 0)
    assert 0 < alpha[1] < 0.07
    assert sigma[1] > 0.99


@pytest.mark.parametrize("schedule", VP, ids=["cosine", "scaled", "linear"])
@given(t=st.floats(0, 1))
def test_variance_is_preserved(schedule: Schedule, t: float) -> None:
    time = torch.tensor([t], dtype=torch.float64)
    assert float(schedule.alpha(time) ** 2 + schedule.sigma(time) ** 2) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@given(t=INSIDE)
def test_t_at_log_snr_is_the_inverse_of_log_snr(schedule: Schedule, t: float) -> None:
    time = torch.tensor([t], dtype=torch.float64)
    assert float(schedule.t_at_log_snr(schedule.log_snr(time))) == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_log_snr_falls_and_its_inverse_stays_in_range(schedule: Schedule) -> None:
    check_schedule(schedule, laws=["noise_grows", "inverse"])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_float32_stays_float32(schedule: Schedule) -> None:
    check_schedule(schedule, laws=["shape_and_type", "single_precision"])
    assert schedule.t_at_log_snr(torch.linspace(-6, 6, 9).float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "schedule"), [("scaled_linear", LinearSchedule()), ("linear", LinearSchedule(1e-4, 0.02, scaled=False))]
)
def test_linear_schedule_equals_that_of_diffusers(kind: str, schedule: LinearSchedule) -> None:
    from diffusers import DDPMScheduler

    start, end = (0.00085, 0.012) if kind == "scaled_linear" else (1e-4, 0.02)
    theirs = DDPMScheduler(1000, beta_start=start, beta_end=end, beta_schedule=kind)
    t = torch.arange(1, 1001) / 1000
    # Their product of 1000 factors is rounded to float32 at each.
    torch.testing.assert_close(schedule.alpha(t) ** 2, theirs.alphas_cumprod.double(), rtol=1000 * 2**-24, atol=0)
    exact = torch.log1p(-theirs.betas.double()).cumsum(0).exp()
    torch.testing.assert_close(schedule.alpha(t) ** 2, exact, rtol=2e-6, atol=0)


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_edm_schedule_equals_that_of_karras(rho: float) -> None:
    low, high, n = 0.002, 80.0, 18
    i = torch.arange(n)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho  # their equation 5
    schedule = EDMSchedule(low, high, rho)
    torch.testing.assert_close(schedule.sigma(1 - i / (n - 1)), expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(schedule.alpha(i / (n - 1)), torch.ones(n))


def test_geometric_schedule_is_the_limit_of_large_rho() -> None:
    t = torch.linspace(0, 1, 11)
    limit, near = EDMSchedule(0.01, 50.0, float("inf")), EDMSchedule(0.01, 50.0, 1e6)
    torch.testing.assert_close(near.sigma(t), limit.sigma(t), rtol=1e-4, atol=0)
    torch.testing.assert_close(limit.sigma(t).log().diff(), torch.full((10,), (5000.0**0.1)).log())


@pytest.mark.parametrize("wrong", [(0.0, 0.02), (0.02, 0.01), (0.5, 1.0)])
def test_linear_schedule_refuses_impossible_betas(wrong: tuple[float, float]) -> None:
    with pytest.raises(
        ValueError, match=r"beta_(start|end) must lie in \(0, 1\)|need beta_start <= beta_end, got 0\.02 and 0\.01"
    ):
        LinearSchedule(*wrong)


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 7.0), (2.0, 1.0, 7.0), (0.1, 1.0, 0.0)])
def test_edm_schedule_refuses_impossible_ranges(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"(sigma_min|rho) must|need sigma_min < sigma_max, got 2"):
        EDMSchedule(*wrong)


def test_a_linear_schedule_has_steps() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        LinearSchedule(steps=0)
