"""Standard errors against formulas and against the spread of repeated draws."""

import pytest
import torch

from scoredistill.evaluation import (
    GaussianFit,
    Manifold,
    kernel_distance,
    kernel_self_similarity,
    manifold_metrics,
    standard_errors,
    with_errors,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [100, 101])
def test_the_error_of_a_mean_is_the_usual_one(count: int) -> None:
    x = torch.randn(count, generator=rng())
    found = standard_errors(lambda index: {"mean": float(x[index].mean())}, count, 4000, rng(1))
    # The relative standard error of the standard deviation of 4000 nearly normal numbers is 1 / sqrt(8000).
    assert found["mean_se"] == pytest.approx(float(x.std()) / count**0.5, rel=3 / 8000**0.5)


def test_errors_cover_the_spread_of_repeated_draws() -> None:
    draws, count, dims = 40, 80, 3
    data = torch.randn(150, dims, generator=rng())
    fit, manifold, own = GaussianFit.of(data), Manifold.of(data), kernel_self_similarity(data)
    means, errors = [], []
    for seed in range(draws):
        x = 1.3 * torch.randn(count, dims, generator=rng(seed + 1)) + 0.5

        def statistic(index: torch.Tensor, x: torch.Tensor = x) -> dict[str, float]:
            return {
                "frechet": GaussianFit.of(x[index]).distance(fit),
                "kernel": kernel_distance(x[index], data, self_b=own),
                "precision": manifold_metrics(x[index], manifold)["precision"],
            }

        metrics = with_errors(statistic, count, 10, rng())
        means.append([metrics[name] for name in ("frechet", "kernel", "precision")])
        errors.append([metrics[f"{name}_se"] for name in ("frechet", "kernel", "precision")])
    spread = torch.tensor(means).std(0)
    ratio = torch.tensor(errors).square().mean(0).sqrt() / spread
    assert bool(((ratio > 1 / 1.5) & (ratio < 1.5)).all()), ratio


def test_errors_are_reproduced_and_can_be_left_out() -> None:
    x = torch.randn(20, generator=rng())

    def statistic(index: torch.Tensor) -> dict[str, float]:
        return {"max": float(x[index].max())}

    state = torch.get_rng_state()
    assert with_errors(statistic, 20, 5, rng()) == with_errors(statistic, 20, 5, rng())
    assert with_errors(statistic, 20, 0, rng()) == {"max": float(x.max())}
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("count", "resamples"), [(3, 10), (10, 1)])
def test_too_few_samples_are_refused(count: int, resamples: int) -> None:
    with pytest.raises(ValueError, match="4 samples and 2 resamples"):
        standard_errors(lambda index: {"one": 1.0}, count, resamples, rng())
