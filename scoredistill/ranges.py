"""Ranges of numeric settings, in the notation of docstrings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["Range", "RangeError", "require", "require_rising"]

NUMBER = r"-?(?:inf|\d+(?:\.\d+)?(?:e-?\d+)?(?:[/^]\d+)?)"
BOUND = re.compile(rf"(>=|>|<=|<) ({NUMBER})")
INTERVAL = re.compile(rf"([\[(])({NUMBER}), ({NUMBER})([\])])")


class RangeError(ValueError):
    """A setting is outside its range.

    Args:
        name: name of the setting.
        allowed: the range, in the notation of `Range.parse`.
        message: the error message.
    """

    def __init__(self, name: str, allowed: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.allowed = allowed


@dataclass(frozen=True)
class Range:
    """An interval of numbers. It contains infinity only as a closed end, and never NaN.

    Args:
        low: lower end, any number.
        high: upper end, any number.
        low_closed: whether the interval contains the lower end.
        high_closed: whether the interval contains the upper end.
    """

    low: float = -math.inf
    high: float = math.inf
    low_closed: bool = False
    high_closed: bool = False

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse the notation of docstrings: `>= 1`, `> 0`, `<= 0`, `[0, 1)` or `finite`.

        Raises:
            ValueError: if the text is not a range.
        """
        if text == "finite":
            return cls()
        if match := BOUND.fullmatch(text):
            sign = match[1]
            end = _number(match[2])
            closed = sign.endswith("=")
            return cls(low=end, low_closed=closed) if sign[0] == ">" else cls(high=end, high_closed=closed)
        if match := INTERVAL.fullmatch(text):
            return cls(_number(match[2]), _number(match[3]), match[1] == "[", match[4] == "]")
        raise ValueError(f"{text!r} is not a range: write >= 1, > 0, [0, 1) or finite")

    def __contains__(self, number: float) -> bool:
        above = number >= self.low if self.low_closed else number > self.low
        below = number <= self.high if self.high_closed else number < self.high
        return above and below

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "be finite"
        if self.high == math.inf and not self.high_closed:
            return f"be {'at least' if self.low_closed else 'above'} {self.low:.10g}"
        if self.low == -math.inf and not self.low_closed:
            return f"be {'at most' if self.high_closed else 'below'} {self.high:.10g}"
        left, right = "[" if self.low_closed else "(", "]" if self.high_closed else ")"
        return f"lie in {left}{self.low:.10g}, {self.high:.10g}{right}"


def require(allowed: str, **settings: Any) -> None:
    """Check settings against the range in their docstring.

    Args:
        allowed: the range, in the notation of `Range.parse`.
        settings: values by name: numbers, `Piecewise` schedules, or sequences and mappings of numbers, each of which is
            checked. None is allowed.

    Raises:
        RangeError: with the name of the first setting that has a number outside the range.
    """
    limits = _parsed(allowed)
    for name, value in settings.items():
        for key, number in _numbers(name, value):
            if number not in limits:
                raise RangeError(name, allowed, f"{key} must {limits}, got {number}")


def require_rising(**ends: tuple[float, float]) -> None:
    """Check settings that are ranges.

    Args:
        ends: lower and upper end by name.

    Raises:
        ValueError: with the name of the first setting whose lower end is above its upper end.
    """
    for name, (low, high) in ends.items():
        if low > high:
            raise ValueError(f"{name}: the lower end {low} is above the upper end {high}; swap them")


_parsed = cache(Range.parse)


def _number(text: str) -> float:
    if "/" in text:
        above, below = text.split("/")
        return float(above) / float(below)
    if "^" in text:
        base, power = text.split("^")
        return float(base) ** float(power)
    return float(text)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """All numbers of a setting with their names; those of a mapping include the key."""
    if hasattr(value, "tolist"):  # a tensor
        value = value.tolist()
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(f"{name}.{key}", part)
    elif isinstance(value, Iterable):
        for part in value:
            yield from _numbers(name, part)
    elif value is not None:
        yield name, value
