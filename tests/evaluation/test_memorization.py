"""Copies of the data are detected, and new samples are not mistaken for copies."""

import math

import pytest
import torch

from scoredistill.evaluation import Neighborhood, memorization_metrics


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DATA = torch.randn(500, 1, 4, 4, generator=rng(), dtype=torch.float64)


def test_new_samples_are_about_as_far_as_data_are_from_each_other() -> None:
    samples = torch.randn(500, 1, 4, 4, generator=rng(1))
    metrics = memorization_metrics(samples, DATA)
    assert metrics["memorized"] == 0
    # In many dimensions nearest neighbors are hubs: a new sample is rarely nearer to one than the hub's own neighbor.
    assert 0 < metrics["unauthentic"] < 0.5
    # Two means of 500 distances each.
    near = Neighborhood.of(DATA)
    error = math.sqrt(float(near.spacing.var() + near.metrics(samples)["nearest_distance"].var()) / 500)
    assert metrics["nearest_distance"] == pytest.approx(metrics["nearest_distance_data"], rel=0, abs=3 * error)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_copies_are_found(noise: float) -> None:
    copies = DATA[:300] + noise * torch.randn(300, 1, 4, 4, generator=rng(1))
    samples = torch.cat([copies, torch.randn(100, 1, 4, 4, generator=rng(2))])
    metrics = memorization_metrics(samples, DATA)
    assert metrics["memorized"] == 0.75
    assert metrics["unauthentic"] >= 0.75
    # The norm of 16 normal numbers has the mean sqrt(2) Gamma(8.5) / Gamma(8), and the variance 16 less its square.
    mean = math.sqrt(2) * math.gamma(8.5) / math.gamma(8)
    error = math.sqrt((16 - mean**2) / 300)
    found = memorization_metrics(copies, DATA)["nearest_distance"]
    assert found == pytest.approx(mean * noise, rel=0, abs=3 * error * noise)


def test_by_hand() -> None:
    data = torch.tensor([[0.0], [1.0], [4.0]])
    near = Neighborhood.of(data)
    assert near.spacing.tolist() == [1.0, 1.0, 3.0]
    found = near.metrics(torch.tensor([[0.2], [0.4], [2.8], [8.0]]))
    assert found["memorized"].tolist() == [1, 0, 0, 0]
    assert found["unauthentic"].tolist() == [1, 1, 1, 0]
    assert found["nearest_distance"].tolist() == pytest.approx([0.2, 0.4, 1.2, 4.0])


def test_a_point_that_the_data_hold_twice_can_be_copied() -> None:
    doubled = torch.cat([DATA, DATA])
    metrics = memorization_metrics(DATA[:20], doubled)
    assert metrics["memorized"] == 1
    assert metrics["nearest_distance_data"] == 0


def test_errors() -> None:
    with pytest.raises(ValueError, match="data: expected at least 2 rows"):
        memorization_metrics(DATA, DATA[:1])
    with pytest.raises(ValueError, match="rows of 4 and 16"):
        memorization_metrics(DATA[:, :, 0], DATA)
    with pytest.raises(ValueError, match=r"ratio must lie in \(0, 1\]"):
        memorization_metrics(DATA, DATA, ratio=0.0)
