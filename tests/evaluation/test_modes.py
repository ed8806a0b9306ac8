"""Mode histograms, exact by responsibilities (mode_statistics: tests/training/test_callbacks.py)."""

import math

import pytest
import torch

from scoredistill.diffusion import EDMSchedule
from scoredistill.evaluation import mode_divergences, mode_histogram, responsibilities
from scoredistill.teachers import Empirical, GaussianMixture


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MEANS = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def test_dropped_and_uneven_modes_by_hand() -> None:
    teacher = GaussianMixture(MEANS, 0.5, WEIGHTS)
    assert mode_histogram(MEANS[[0, 0, 0, 1]], teacher).tolist() == pytest.approx([0.75, 0.25, 0])
    found = mode_divergences(MEANS[[0, 0, 0, 1]], teacher)
    assert found["mode_total_variation"] == pytest.approx(0.25)
    assert found["mode_kl"] == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.3))
    collapsed = mode_divergences(MEANS[[2]], teacher)
    assert collapsed == pytest.approx({"mode_kl": math.log(5), "mode_total_variation": 0.8})
    shares = MEANS.repeat_interleave(torch.tensor([5, 3, 2]), 0)
    assert mode_divergences(shares, teacher) == pytest.approx({"mode_kl": 0, "mode_total_variation": 0}, abs=1e-12)


def test_the_histogram_of_overlapping_modes_is_unbiased() -> None:
    teacher, n = GaussianMixture(MEANS / 4, 1.0, WEIGHTS), 20000
    x, _ = teacher.sample(n, rng=rng())
    soft = responsibilities(x, teacher)
    error = soft.std(0) / n**0.5
    assert bool(((mode_histogram(x, teacher) - WEIGHTS).abs() < 3 * error).all())
    counted = torch.bincount(soft.argmax(1), minlength=3) / n
    assert bool(((counted - WEIGHTS).abs() > 10 * error).any())


@pytest.mark.parametrize("schedule", [None, EDMSchedule()])
def test_diracs_and_other_schedules(schedule) -> None:
    teacher = Empirical(MEANS, schedule=schedule)
    assert mode_histogram(MEANS[[0, 1, 1, 2]] + 0.1, teacher).tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_an_empty_set_has_no_histogram() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        mode_histogram(MEANS[:0], GaussianMixture(MEANS, 0.5))
