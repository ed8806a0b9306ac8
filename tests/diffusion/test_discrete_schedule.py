"""Schedules from the variances of discrete steps."""

import pytest
import torch

from scoredistill.diffusion import DiscreteSchedule, LinearSchedule, Prediction


def test_it_is_exact_at_its_steps() -> None:
    betas = torch.tensor([0.1, 0.4, 0.2])
    t, alpha = torch.arange(4) / 3, torch.tensor([1.0, 0.9, 0.54, 0.432]).sqrt()
    schedule = DiscreteSchedule(betas)
    torch.testing.assert_close(schedule.alpha(t), alpha)
    torch.testing.assert_close(schedule.sigma(t), (1 - alpha**2).sqrt())
    torch.testing.assert_close(schedule.t_at_log_snr(schedule.log_snr(t[1:])), t[1:])


def test_the_linear_schedule_is_one() -> None:
    schedule, t = LinearSchedule(1e-4, 0.02, scaled=False), torch.linspace(0.01, 1, 57)
    same = DiscreteSchedule(torch.linspace(1e-4, 0.02, 1000))
    torch.testing.assert_close(schedule.alpha(t), same.alpha(t))


def test_a_last_step_without_signal_stays_finite() -> None:
    schedule, t = DiscreteSchedule(torch.tensor([0.5, 1.0])), torch.tensor([0.5, 0.8, 1.0])
    assert float(schedule.alpha(t)[-1]) == pytest.approx(2**-12)
    assert schedule.log_snr(t).isfinite().all()
    torch.testing.assert_close(schedule.t_at_log_snr(schedule.log_snr(t)), t)
    assert Prediction(torch.ones(3, 2), t, schedule, v=torch.ones(3, 2)).x0.isfinite().all()


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [1.0, 0.5], [0.1, 1.2], [[0.1]], [0.1, float("nan")]], ids=str)
def test_variances_out_of_range_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must be numbers"):
        DiscreteSchedule(torch.tensor(betas))
