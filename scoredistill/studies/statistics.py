"""Statistics for few seeds: bootstrap intervals, paired differences, and a correction for multiple comparisons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 9999
"""Number of bootstrap resamples, and largest number of sign patterns that are enumerated."""


@dataclass(frozen=True)
class Mean:
    """Mean of a metric over seeds.

    Args:
        n: number of seeds.
        mean: the mean.
        error: its standard error; None for one seed.
        low, high: bootstrap interval; None for fewer than three seeds, which do not determine the spread.
    """

    n: int
    mean: float
    error: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two cells with the same seeds.

    Args:
        n: number of common seeds.
        mean: mean of the differences.
        low, high: bootstrap interval; None for fewer than three seeds.
        effect: paired effect size, see `paired`; None for fewer than three seeds, and if all differences are equal.
        p: p-value of the sign-flip test; None for one seed.
        least_p: smallest p-value that the test can give for this number of seeds.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    effect: float | None
    p: float | None
    least_p: float


def mean_of(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Mean:
    """Mean, standard error and bootstrap interval.

    The interval uses expanded percentiles, the bootstrap's percentiles at

        alpha' = Phi(-sqrt(n / (n - 1)) t_{n-1, 1 - alpha/2})

    Plain percentiles are too narrow for few seeds: their variance lacks the factor n / (n - 1), and they ignore that
    it is estimated. No bootstrap interval is wider than the range of the seeds, which contains the center of a
    symmetric distribution with probability 1 - 2^(1 - n) only: 75% for three seeds, 94% for five.

    "What Teachers Should Know about the Bootstrap" (2014), arXiv:1411.5279.

    Args:
        values: one value per seed, finite.
        level: confidence level of the interval, in (0, 1).
        seed: seed of the resamples.

    Raises:
        ValueError: if values is empty.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("a mean needs at least one seed")
    error = None if len(x) < 2 else float(x.std(ddof=1) / math.sqrt(len(x)))
    low, high = _interval(x, level, seed)
    return Mean(len(x), float(x.mean()), error, low, high)


def paired(values: Sequence[float], others: Sequence[float], level: float = 0.95, seed: int = 0) -> Difference:
    """Difference of two cells with the same seeds: d_i = values_i - others_i.

    The p-value is that of the exact two-sided sign-flip test. Under the null hypothesis both signs of each d_i are
    equally likely, whatever its distribution; the p-value is the share of the 2^n sign patterns whose mean is at least
    as far from 0. The effect size is Cohen's d_z = mean(d) / sd(d) with Hedges' correction 1 - 3 / (4 (n - 1) - 1).

    Args:
        values, others: one value per seed, in the same order of seeds, finite.
        level: confidence level of the interval.
        seed: seed of the resamples.

    Raises:
        ValueError: if values is empty, or the lengths differ.
    """
    if len(values) != len(others) or len(values) == 0:
        raise ValueError(f"a paired difference needs pairs of values; got {len(values)} and {len(others)} values")
    d = np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    low, high = _interval(d, level, seed)
    least = min(1.0, 2.0 ** (1 - len(d)))
    return Difference(len(d), float(d.mean()), low, high, _effect(d), _sign_flip(d, seed), least)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction for multiple tests: rejecting at p~ <= alpha bounds the family-wise error rate by alpha.

        p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)

    A Simple Sequentially Rejective Multiple Test Procedure, S. Holm, 1979, Scandinavian Journal of Statistics 6(2).

    Args:
        p: p-values in [0, 1], in any order.

    Returns:
        The corrected p-values, in the same order.
    """
    corrected = [0.0] * len(p)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def _interval(x: np.ndarray, level: float, seed: int) -> tuple[float | None, float | None]:
    from scipy import stats

    n = len(x)
    if n < 3:
        return None, None
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + level / 2, n - 1))
    rng = np.random.default_rng(seed)
    means = x[rng.integers(n, size=(RESAMPLES, n))].mean(1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _effect(d: np.ndarray) -> float | None:
    n = len(d)
    if n < 3 or np.ptp(d) == 0:  # with two seeds Hedges' correction is 0
        return None
    return float(d.mean() / d.std(ddof=1) * (1 - 3 / (4 * (n - 1) - 1)))


def _sign_flip(d: np.ndarray, seed: int) -> float | None:
    n = len(d)
    if n < 2:
        return None
    if 2**n <= RESAMPLES:
        signs = np.asarray(list(itertools.product((1.0, -1.0), repeat=n)))
        observed = 0
    else:  # random patterns, together with the observed one
        signs = np.random.default_rng(seed).choice([1.0, -1.0], size=(RESAMPLES, n))
        observed = 1
    as_far = np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-12)
    return float((as_far.sum() + observed) / (len(signs) + observed))
