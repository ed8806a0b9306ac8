"""Ranges of numeric settings, in the notation of the docstrings that declare them."""

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
    """A setting lies outside its range.

    Args:
        name: of the setting.
        allowed: the range, as `Range.parse` reads it.
        said: the message.
    """

    def __init__(self, name: str, allowed: str, said: str) -> None:
        super().__init__(said)
        self.name, self.allowed = name, allowed


@dataclass(frozen=True)
class Range:
    """An interval of numbers. Infinity belongs to it only where it is a closed end; NaN never does.

    Args:
        low: lower end, any number.
        high: upper end, any number.
        low_closed: whether the lower end belongs to it.
        high_closed: whether the upper end belongs to it.
    """

    low: float = -math.inf
    high: float = math.inf
    low_closed: bool = False
    high_closed: bool = False

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range as docstrings state it: `>= 1`, `> 0`, `<= 0`, `[0, 1)` or `finite`.

        Raises:
            ValueError: if the text is no range.
        """
        if text == "finite":
            return cls()
        if found := BOUND.fullmatch(text):
            sign, end = found[1], _number(found[2])
            closed = sign.endswith("=")
            return cls(low=end, low_closed=closed) if sign[0] == ">" else cls(high=end, high_closed=closed)
        if found := INTERVAL.fullmatch(text):
            return cls(_number(found[2]), _number(found[3]), found[1] == "[", found[4] == "]")
        raise ValueError(f"{text!r} is no range: write >= 1, > 0, [0, 1) or finite")

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
    """Check settings against the range that their docstring states.

    Args:
        allowed: the range, as `Range.parse` reads it.
        settings: by name: numbers, `Piecewise` schedules, or sequences and mappings of numbers, each of which is
            checked. None is not.

    Raises:
        RangeError: naming the first setting with a number outside the range.
    """
    limits = _parsed(allowed)
    for name, value in settings.items():
        for key, number in _numbers(name, value):
            if number not in limits:
                raise RangeError(name, allowed, f"{key} must {limits}, got {number}")


def require_rising(**ends: tuple[float, float]) -> None:
    """Check ranges that are settings themselves.

    Args:
        ends: by name, the lower and the upper end.

    Raises:
        ValueError: naming the first whose lower end lies above its upper one.
    """
    for name, (low, high) in ends.items():
        if low > high:
            raise ValueError(f"{name}: the range begins at {low} and ends at {high}; swap them")


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
    """All numbers of a setting, those of a mapping by their keys."""
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
