"""The exact Wasserstein distance of small sets."""

import itertools

import pytest
import torch

from scoredistill.evaluation import wasserstein2


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_the_best_of_all_permutations() -> None:
    a, b = torch.randn(2, 6, 3, generator=rng())
    costs = [(a - b[list(order)]).square().sum(1).mean() for order in itertools.permutations(range(6))]
    assert wasserstein2(a, b) == pytest.approx(float(torch.stack(costs).min().sqrt()))


def test_shifts_and_reordering() -> None:
    a = torch.randn(200, 1, 2, 2, generator=rng())
    assert wasserstein2(a, a.flip(0)) == 0
    assert wasserstein2(a, a.flip(0) + 0.5) == pytest.approx(1.0)


def test_on_a_line_it_matches_in_order() -> None:
    a, b = torch.randn(2, 300, 1, generator=rng())
    assert wasserstein2(a, b) == pytest.approx(float((a.sort(0)[0] - b.sort(0)[0]).square().mean().sqrt()))


def test_errors() -> None:
    with pytest.raises(ValueError, match="equally many points, got 3 and 2"):
        wasserstein2(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="rows of 2 and 1"):
        wasserstein2(torch.zeros(3, 2), torch.zeros(3, 1))
