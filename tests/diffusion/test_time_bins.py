"""Bins of noise levels."""

import pytest
import torch
from laws.zoo import SCHEDULES, name

from scoredistill.annealing import Knot, Piecewise
from scoredistill.diffusion import CosineSchedule, NoiseLevelTimesteps, Schedule, UniformTimesteps
from scoredistill.diffusion.timesteps import TimeBins


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_bins_are_filled_equally_by_the_times_of_a_whole_training(schedule: Schedule) -> None:
    timesteps = NoiseLevelTimesteps(Piecewise([Knot(0.0, 5.0, "geometric"), Knot(1.0, 0.1)]), spread=2.0)
    bins, rng = TimeBins.quantiles(timesteps, schedule, 5), torch.Generator().manual_seed(1)
    t = torch.cat([timesteps(500, schedule, progress, rng) for progress in torch.linspace(0, 1, 21).tolist()])
    shares = torch.bincount(bins(t, schedule), minlength=5) / len(t)
    # Three standard errors of a share, and one for the edges' own draws.
    assert (shares - 0.2).abs().max() < 4 * (0.2 * 0.8 / len(t)) ** 0.5 + 0.01


def test_the_first_bin_is_the_noisiest() -> None:
    schedule = CosineSchedule()
    bins = TimeBins.quantiles(UniformTimesteps(), schedule, 4)
    assert bins(torch.tensor([0.98, 0.6, 0.4, 0.02]), schedule).tolist() == [0, 1, 2, 3]
    assert len(bins) == 4


def test_means_are_of_the_bins_that_have_any() -> None:
    bins, schedule = TimeBins([-1.0, 1.0]), CosineSchedule()
    t = schedule.t_at_log_snr(torch.tensor([-2.0, -3.0, 4.0]))
    means = bins.means(torch.tensor([1.0, 3.0, 5.0]), t, schedule)
    assert {level: float(mean) for level, mean in means.items()} == {0: 2.0, 2: 5.0}


def test_one_bin_takes_all_even_at_infinite_ratios() -> None:
    bins = TimeBins.quantiles(UniformTimesteps(0.0, 1.0), CosineSchedule(), 3)
    assert torch.isfinite(bins.edges).all()
    assert len(TimeBins.quantiles(UniformTimesteps(), CosineSchedule(), 1)) == 1
