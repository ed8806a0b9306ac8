"""Values that change with training progress, typed and named."""

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
        value: the value reached there, finite.
        then: how to go on to the next knot: hold the value and jump, or move linearly or geometrically.

    Raises:
        ValueError: if `at` lies outside [0, 1] or the value is not finite.
    """

    at: float
    value: float
    then: Literal["hold", "linear", "geometric"] = "linear"

    def __post_init__(self) -> None:
        require("[0, 1]", at=self.at)
        require("finite", value=self.value)


@dataclass(frozen=True)
class Piecewise:
    """A value over training progress, through named knots; constant before the first and after the last.

    Iterating gives the values at the knots; all others lie between them.

    Args:
        knots: in order of `at`, at least one.

    Raises:
        ValueError: if there is no knot, they are out of order, or a geometric segment touches a value <= 0.
    """

    knots: Sequence[Knot]

    def __post_init__(self) -> None:
        if not self.knots:
            raise ValueError("Piecewise needs at least one knot")
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            if not left.at < right.at:
                raise ValueError(f"Piecewise knots must be in order of `at`; {right.at} follows {left.at}")
            if left.then == "geometric" and min(left.value, right.value) <= 0:
                raise ValueError(f"a geometric segment needs values > 0; got {left.value} and {right.value}")

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
"""A constant or a schedule, wherever a setting may change during training."""


def at_progress(value: Annealed, progress: float) -> float:
    """The value of a constant or a schedule at a fraction of training."""
    return value(progress) if isinstance(value, Piecewise) else value
