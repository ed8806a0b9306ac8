"""Values that are annealed over training progress."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoredistill.annealing import Knot, Piecewise, at_progress

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
        ([Knot(0.5, 1.0), Knot(0.5, 2.0)], "in order of `at`, got 0.5 after 0.5"),
        ([Knot(0.5, 1.0), Knot(0.2, 2.0)], "in order of `at`, got 0.2 after 0.5"),
        ([Knot(0.0, 1.0, "geometric"), Knot(1.0, 0.0)], "a geometric segment needs values > 0, got 1.0 and 0.0"),
        ([Knot(0.0, -1.0, "geometric"), Knot(1.0, 1.0)], "a geometric segment needs values > 0"),
    ],
)
def test_impossible_knots_are_errors(knots: list[Knot], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Piecewise(knots)


@pytest.mark.parametrize("at", [-0.1, 1.5, float("nan")])
def test_a_knot_outside_training_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match=rf"at must lie in \[0, 1\], got {at}"):
        Knot(at, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_value_of_a_knot_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match=rf"value must be finite, got {value}"):
        Knot(0.5, value)


def test_a_schedule_lists_its_values() -> None:
    assert list(THREE) == [4.0, 1.0, 2.0, 32.0]
