"""SVG elements, and scales with round tick values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An SVG element.

    Args:
        name: name of the element.
        content: its escaped content.
        attributes: its attributes. In names, trailing underscores are removed and others become hyphens; floating-point
            numbers are written with two decimals.
    """
    words = [f'{key.rstrip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items()]
    return f"<{' '.join([name, *words])}>{content}</{name}>"


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Args:
        low, high: values at the two ends.
        start, end: pixels at the two ends.
        log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, log: bool = False) -> Scale:
        """A scale that contains all values, with a margin."""
        known = list(values)
        low, high = min(known, default=0.0), max(known, default=1.0)
        if log:
            return cls(low / 1.1, high * 1.1, start, end, True)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        ends = [self.low, self.high, value]
        low, high, x = [math.log(end) for end in ends] if self.log else ends
        return self.start + (self.end - self.start) * (x - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Approximately `count` round numbers between the ends."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            if len(powers) > 1:
                return [10.0**power for power in powers]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step)
        values = [step * i for i in range(first, math.floor(self.high / step * (1 + 1e-9)) + 1)]
        return [value for value in values if not self.log or value > 0]


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """An SVG drawing that scales with the page.

    Args:
        width, height: size in pixels.
        title: description for screen readers.
        parts: its elements.
    """
    inner = tag("title", escape(title)) + "".join(parts)
    box = f"0 0 {width:g} {height:g}"
    return tag(
        "svg", inner, viewBox=box, role="img", style=f"max-width:{width:g}px", xmlns="http://www.w3.org/2000/svg"
    )
