"""Standard errors by resampling, for metrics without a formula for their error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def standard_errors(
    statistic: Callable[[Tensor], Mapping[str, float]], n: int, resamples: int, rng: torch.Generator
) -> dict[str, float]:
    """Standard errors by half-sampling: the delete-half jackknife.

        se = sqrt(m / (n - m)) sd_r(statistic of m = n // 2 of the n samples, drawn without replacement)

    For means this is the usual standard error. Unlike a bootstrap sample, a subset contains no sample twice, which
    would make nearest neighbors coincide. The data are fixed: the error is that of drawing n new samples. It is
    consistent for smooth functions of means and approximate for neighborhood metrics; for squared distances that
    consist only of noise it is up to sqrt(3) too large. With R resamples its relative uncertainty is about 1 / sqrt(2
    R).

    A General Theory for Jackknife Variance Estimation, J. Shao and C. F. J. Wu, 1989, Annals of Statistics 17(3).

    Args:
        statistic: returns the metrics of a subset, called with its indices (m,).
        n: number of samples, >= 4.
        resamples: number R of subsets, >= 2.
        rng: CPU generator.

    Returns:
        `name_se` for each `name` that the statistic returns.

    Raises:
        ValueError: if there are too few samples or resamples.
    """
    if n < 4 or resamples < 2:
        raise ValueError(f"standard errors need at least 4 samples and 2 resamples, got {n} and {resamples}")
    m = n // 2
    drawn = [statistic(torch.randperm(n, generator=rng)[:m]) for _ in range(resamples)]
    scale = (m / (n - m)) ** 0.5
    values = {name: torch.tensor([metrics[name] for metrics in drawn], dtype=torch.float64) for name in drawn[0]}
    return {f"{name}_se": scale * float(value.std()) for name, value in values.items()}


def with_errors(
    statistic: Callable[[Tensor], Mapping[str, float]], n: int, resamples: int, rng: torch.Generator
) -> dict[str, float]:
    """Metrics of all n samples together with their standard errors.

    Args:
        statistic: returns the metrics of a subset, called with its indices.
        n: number of samples.
        resamples: see `standard_errors`; 0: no errors.
        rng: CPU generator.
    """
    metrics = dict(statistic(torch.arange(n)))
    return metrics | (standard_errors(statistic, n, resamples, rng) if resamples else {})


def mean_over_sets(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of metrics over independent sets, with standard errors from the spread between the sets.

    Args:
        metrics: metrics of at least two sets, with equal names.

    Returns:
        `name` and `name_se` for each name.
    """
    values = {name: torch.tensor([each[name] for each in metrics], dtype=torch.float64) for name in metrics[0]}
    means = {name: float(value.mean()) for name, value in values.items()}
    return means | {f"{name}_se": float(value.std()) / len(metrics) ** 0.5 for name, value in values.items()}
