"""Intervals, paired differences and the correction for many comparisons, against closed forms and simulation."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from scoredistill.studies.statistics import holm, mean_of, paired


def test_a_mean_and_its_error():
    found = mean_of([1.0, 2.0, 6.0])
    assert found.n == 3
    assert found.mean == 3.0
    assert found.error == pytest.approx(np.std([1, 2, 6], ddof=1) / sqrt(3))
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0
    assert mean_of([1.0, 2.0, 6.0]) == found


def test_too_few_seeds_have_no_interval():
    assert mean_of([2.0]) == type(mean_of([2.0]))(1, 2.0, None, None, None)
    assert mean_of([2.0, 4.0]).error == pytest.approx(1.0)
    assert mean_of([2.0, 4.0]).low is None
    assert mean_of([2.0, 2.0, 2.0]).low == mean_of([2.0, 2.0, 2.0]).high == 2.0
    with pytest.raises(ValueError, match="at least one seed"):
        mean_of([])


def test_many_seeds_give_the_usual_interval():
    """For many values the bootstrap interval of a mean approaches Student's."""
    x = np.random.default_rng(0).normal(size=400)
    found = mean_of(x)
    low, high = stats.t.interval(0.95, 399, x.mean(), stats.sem(x))
    # The quantile of 9999 means has the standard error sqrt(p (1 - p) / 9999) / density, three of which are allowed.
    error = 3 * sqrt(0.025 * 0.975 / 9999) / stats.norm.pdf(1.96) * stats.sem(x)
    assert found.low == pytest.approx(low, rel=0, abs=error)
    assert found.high == pytest.approx(high, rel=0, abs=error)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_how_often_an_interval_holds_the_mean(draw):
    """With ten seeds, 95% for normal metrics; less for skewed ones, as for every interval of a mean, also Student's."""
    rng, trials = np.random.default_rng(1), 400
    held, students = 0, 0
    for _ in range(trials):
        x = rng.normal(size=10) if draw == "normal" else rng.exponential(size=10) - 1
        found = mean_of(x)
        held += found.low <= 0 <= found.high
        low, high = stats.t.interval(0.95, 9, x.mean(), stats.sem(x))
        students += low <= 0 <= high
    error = sqrt(0.95 * 0.05 / trials)
    if draw == "normal":
        assert abs(held / trials - 0.95) < 3 * error
    assert abs(held - students) / trials < 3 * error  # never far from Student's


def test_intervals_of_three_seeds_cover_at_most_three_quarters():
    rng, trials = np.random.default_rng(2), 400
    held = 0
    for _ in range(trials):
        found = mean_of(rng.normal(size=3))
        held += found.low <= 0 <= found.high
    assert held / trials < 0.75 + 3 * sqrt(0.75 * 0.25 / trials)


def test_pairs_are_compared_seed_by_seed():
    rng = np.random.default_rng(3)
    luck = 10 * rng.normal(size=8)  # of the seeds: in both cells
    a, b = luck + 1 + 0.1 * rng.normal(size=8), luck
    found = paired(a, b)
    assert found.mean == pytest.approx((a - b).mean(), abs=1e-12)
    assert found.p == pytest.approx(2 / 2**8) == found.least_p
    d = a - b
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1) * (1 - 3 / 27))
    reverse = paired(b, a)
    assert (reverse.mean, reverse.effect, reverse.p) == (-found.mean, -found.effect, found.p)


def test_the_sign_flip_test_is_scipys():
    rng = np.random.default_rng(4)
    for n in (2, 5, 9):
        a, b = rng.normal(size=n), rng.normal(size=n)
        reference = stats.permutation_test(
            (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf,
            vectorized=True,
        )  # fmt: skip
        assert paired(a, b).p == pytest.approx(reference.pvalue)
    many = rng.normal(0.2, size=40)
    exact = stats.ttest_1samp(many, 0).pvalue  # what it comes close to for many seeds
    # 9999 patterns have three of their standard errors, and the two tests differ by a relative 1 / n.
    error = 3 * sqrt(exact * (1 - exact) / 9999) + exact / 40
    assert paired(many, np.zeros(40)).p == pytest.approx(exact, rel=0, abs=error)


def test_differences_without_a_spread():
    assert paired([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]).effect is None
    same = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.mean, same.effect, same.p) == (0.0, None, 1.0)
    single = paired([2.0], [1.0])
    assert (single.mean, single.p, single.effect, single.low) == (1.0, None, None, None)
    with pytest.raises(ValueError, match="needs pairs of values"):
        paired([1.0], [1.0, 2.0])


def test_holm_by_hand():
    """.01 x 4, .02 x 3, .03 x 2, which may not be below its predecessor, .5 x 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


def test_false_alarms_among_many_comparisons_are_rare():
    """Four equal cells against a baseline: a corrected p is below .05 in at most 5% of studies."""
    rng, trials = np.random.default_rng(5), 300
    alarms = 0
    for _ in range(trials):
        base, cells = rng.normal(size=9), rng.normal(size=(4, 9))
        alarms += min(holm([paired(cell, base).p for cell in cells])) <= 0.05
    assert alarms / trials <= 0.05 + 3 * sqrt(0.05 * 0.95 / trials)
