"""Values that change with progress."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoredistill.annealing import Knot, Piecewise, at_progress, lowest, require_at_least

THREE = Piecewise([Knot(0.2, 4.0, "hold"), Knot(0.4, 1.0, "linear"), Knot(0.6, 2.0, "geometric"), Knot(1.0, 32.0)])


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 4.0), (0.2, 4.0), (0.3999, 4.0), (0.4, 1.0), (0.5, 1.5), (0.6, 2.0), (0.8, 8.0), (0.9, 16.0), (1.0, 32.0),
     (2.0, 32.0)],
)  # fmt: skip
def test_every_kind_of_segment(progress: float, value: float) -> None:
    assert THREE(progress) == pytest.approx(value)


@given(progress=st.floats(0, 1))
def test_values_stay_between_those_of_the_knots(progress: float) -> None:
    assert 1 - 1e-12 <= THREE(progress) <= 32 + 1e-12


@given(value=st.floats(-10, 10), progress=st.floats(0, 1))
def test_constants_and_single_knots_do_not_change(value: float, progress: float) -> None:
    assert at_progress(value, progress) == value
    assert at_progress(Piecewise([Knot(0.5, value)]), progress) == value


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        ([], "at least one knot"),
        ([Knot(0.5, 1.0), Knot(0.5, 2.0)], "in order of `at`; 0.5 follows 0.5"),
        ([Knot(0.5, 1.0), Knot(0.2, 2.0)], "in order of `at`; 0.2 follows 0.5"),
        ([Knot(0.0, 1.0, "geometric"), Knot(1.0, 0.0)], "a geometric segment needs values > 0; got 1.0 and 0.0"),
        ([Knot(0.0, -1.0, "geometric"), Knot(1.0, 1.0)], "a geometric segment needs values > 0"),
    ],
)
def test_impossible_knots_are_errors(knots: list[Knot], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Piecewise(knots)


@pytest.mark.parametrize("at", [-0.1, 1.5, float("nan")])
def test_a_knot_lies_within_training(at: float) -> None:
    with pytest.raises(ValueError, match=rf"`at` is a fraction of training in \[0, 1\], got {at}"):
        Knot(at, 1.0)


def test_settings_that_are_too_small_are_named() -> None:
    assert (lowest(3.0), lowest(THREE)) == (3.0, 1.0)
    require_at_least(1, first=1, second=THREE)
    for value in (0.5, float("nan"), Piecewise([Knot(0, 2.0), Knot(1, 0.5)])):
        with pytest.raises(ValueError, match=r"second must be at least 1, got (0\.5|nan)"):
            require_at_least(1, first=1, second=value)
