"""Schedules of values over training progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from scoredistill.ranges import require

__all__ = ["Annealed", "Knot", "Piecewise", "at_progress"]


@dataclass(frozen=True)
class Knot:
    """One point of a `Piecewise` schedule.

    Args:
        at: fraction of training, in [0, 1].
        value: the value at this point, finite.
        then: interpolation up to the next knot: hold the value and jump, or linear or geometric.

    Raises:
        ValueError: if `at` is outside [0, 1] or the value is not finite.
    """

    at: float
    value: float
    then: Literal["hold", "linear", "geometric"] = "linear"

    def __post_init__(self) -> None:
        require("[0, 1]", at=self.at)
        require("finite", value=self.value)


@dataclass(frozen=True)
class Piecewise:
    """A piecewise function of training progress, constant before the first knot and after the last.

    Iteration yields the values at the knots, which bound all others.

    Args:
        knots: at least one knot, in order of `at`.

    Raises:
        ValueError: if there is no knot, they are out of order, or a geometric segment has a value <= 0.
    """

    knots: Sequence[Knot]

    def __post_init__(self) -> None:
        if not self.knots:
            raise ValueError("Piecewise needs at least one knot")
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            if not left.at < right.at:
                raise ValueError(f"Piecewise knots must be in order of `at`, got {right.at} after {left.at}")
            if left.then == "geometric" and min(left.value, right.value) <= 0:
                raise ValueError(f"a geometric segment needs values > 0, got {left.value} and {right.value}")

    def __iter__(self) -> Iterator[float]:
        return (knot.value for knot in self.knots)

    def __call__(self, progress: float) -> float:
        """The value at a fraction of training."""
        if progress < self.knots[0].at:
            return self.knots[0].value
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            if progress < right.at:
                s = (progress - left.at) / (right.at - left.at)
                match left.then:
                    case "hold":
                        return left.value
                    case "linear":
                        return left.value + s * (right.value - left.value)
                    case _:
                        return left.value * (right.value / left.value) ** s
        return self.knots[-1].value


Annealed = float | Piecewise
"""A constant or a schedule, the type of settings that may change during training."""


def at_progress(value: Annealed, progress: float) -> float:
    """The value of a constant or a schedule at a fraction of training."""
    return value(progress) if isinstance(value, Piecewise) else value
