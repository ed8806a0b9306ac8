"""Precision, recall, density and coverage."""

import pytest
import torch

from scoredistill.evaluation import Manifold, manifold_metrics


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_clusters(count: int, seed: int) -> torch.Tensor:
    side = torch.tensor([-10.0, 10.0]).repeat(count // 2)[:, None]
    return side + torch.randn(count, 2, generator=rng(seed))


def test_by_hand() -> None:
    """On a line with k = 1: balls of data 0, 1, 3 have radii 1, 1, 2."""
    data, samples = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [5.0], [9.0]])
    assert Manifold.of(data, 1).radii.tolist() == [1.0, 1.0, 2.0]
    # Samples: .5 lies in the balls of 0 and 1, 5 in that of 3, 9 in none. Their own balls have radii 4.5, 4, 4.
    assert manifold_metrics(samples, data, 1) == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    )
    assert manifold_metrics(samples + 100, data, 1) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_samples_of_the_same_distribution() -> None:
    metrics = manifold_metrics(two_clusters(400, 0), two_clusters(400, 1))
    assert metrics["precision"] > 0.9
    assert metrics["recall"] > 0.9
    assert metrics["coverage"] > 0.9


def test_the_density_of_the_same_distribution_is_one_on_average() -> None:
    """A new point is as likely as each of the data to be among a ball's k nearest of N: its chance is k / N exactly."""
    pairs = [(two_clusters(100, 2 * i), two_clusters(100, 2 * i + 1)) for i in range(30)]
    density = torch.tensor([manifold_metrics(*pair)["density"] for pair in pairs])
    assert float(density.mean()) == pytest.approx(1, abs=3 * float(density.std()) / len(pairs) ** 0.5)


def test_a_dropped_mode_is_missed_but_not_imprecise() -> None:
    data, samples = two_clusters(400, 1), two_clusters(400, 0)
    metrics = manifold_metrics(samples[::2], data)
    assert metrics["precision"] > 0.9
    assert metrics["recall"] < 0.55
    assert metrics["coverage"] < 0.55


def test_noise_is_imprecise() -> None:
    metrics = manifold_metrics(5 * two_clusters(400, 0), two_clusters(400, 1))
    assert metrics["precision"] < 0.2
    assert metrics["density"] < 0.2


def test_identical_sets_and_copies() -> None:
    data = torch.randn(50, 3, generator=rng())
    metrics = manifold_metrics(data.flip(0), data)
    assert (metrics["precision"], metrics["recall"], metrics["coverage"]) == (1, 1, 1)
    one_point = data[:1].expand(50, -1)
    metrics = manifold_metrics(one_point, data)
    assert metrics["precision"] == 1
    assert metrics["recall"] == pytest.approx(1 / 50)  # the ball of copies has no extent


def test_few_samples_use_fewer_neighbors() -> None:
    few = torch.randn(3, 8, generator=rng())
    assert Manifold.of(few, 5).neighbors == 2
    assert all(0 <= value <= 3 for value in manifold_metrics(few, few + 0.1).values())


def test_errors() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="neighbors must be at least 1"):
        Manifold.of(x, 0)
    with pytest.raises(ValueError, match="at least 2 rows"):
        manifold_metrics(x[:1], x)
    with pytest.raises(ValueError, match="rows of 2 and 1"):
        manifold_metrics(x[:, :1], x)
