"""Plots as SVG: metrics of every cell, a metric over a numeric axis, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from scoredistill.studies.report.content import Content


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


WIDTH = 720.0
ROW = 24.0
TOP = 6.0
LETTER = 6.2
"""Approximate width of a letter in pixels."""
COLORS = 8
"""Number of colors in the style sheet."""


def dots(content: Content, metric: str) -> str:
    """One line per cell: its seeds as dots over the interval of their mean."""
    cells = content.results.cells
    values = {cell: content.results.values(cell, metric) for cell in cells}
    means = {cell: content.row(cell, metric).mean for cell in cells}
    reach = [value for known in values.values() for value in known.values()]
    reach += [edge for mean in means.values() if mean for edge in (mean.low, mean.high) if edge is not None]
    left = 14 + LETTER * min(60, max(map(len, cells)))
    scale = Scale.around(reach, left, WIDTH - 14)
    bottom = TOP + ROW * len(cells)
    parts = [_tick(scale(tick), f"{tick:.6g}", TOP, bottom) for tick in scale.ticks()]
    for row, cell in enumerate(cells):
        y = TOP + ROW * (row + 0.5)
        mean = means[cell]
        parts.append(tag("text", escape(cell[:60]), x=left - 10, y=y + 4, text_anchor="end"))
        if mean is not None and mean.low is not None and mean.high is not None:
            parts.append(tag("line", x1=scale(mean.low), x2=scale(mean.high), y1=y, y2=y, class_="interval"))
        for seed, value in values[cell].items():
            title = tag("title", escape(f"seed {seed}: {value:.6g}"))
            parts.append(tag("circle", title, cx=scale(value), cy=y, r=3.5, class_="seed"))
        if mean is not None:
            parts.append(tag("line", x1=scale(mean.mean), x2=scale(mean.mean), y1=y - 8, y2=y + 8, class_="mean"))
    return picture(WIDTH, bottom + 22, f"{metric} of every cell, seed by seed", parts)


def over_axes(content: Content, metric: str) -> list[str]:
    """The metric over every axis with at least three numeric values, one line per setting of the other axes."""
    drawn = []
    for axis, names in content.results.record.axes.items():
        numbers = _numbers(list(names))
        if len(numbers) >= 3:
            drawn.append(_lines(content, metric, axis, numbers))
    return drawn


def _numbers(names: list[str]) -> dict[str, float]:
    """Numeric values by name; empty if one is not a number."""
    try:
        return dict(sorted(((name, float(name)) for name in names), key=lambda pair: pair[1]))
    except ValueError:
        return {}


def _lines(content: Content, metric: str, axis: str, numbers: Mapping[str, float]) -> str:
    groups: dict[str, dict[float, str]] = {}
    for cell, settings in content.results.settings.items():
        rest = ",".join(f"{key}={value}" for key, value in settings.items() if key != axis) or metric
        groups.setdefault(rest, {})[numbers[settings[axis]]] = cell
    means = {row.cell: row.mean for row in content.rows if row.metric == metric and row.mean is not None}
    edges = [edge for m in means.values() for edge in (m.mean, m.low, m.high) if edge is not None]
    low, high = min(numbers.values()), max(numbers.values())
    across = Scale.around(numbers.values(), 60, WIDTH - 14, log=low > 0 and high >= 10 * low)
    up = Scale.around(edges, 230, TOP)
    parts = [_tick(across(value), name, TOP, 230) for name, value in numbers.items()]
    parts += [tag("text", f"{tick:.6g}", x=52, y=up(tick) + 4, text_anchor="end") for tick in up.ticks()]
    for index, (rest, cells) in enumerate(groups.items()):
        color = f"c{index % COLORS}"
        known = [(value, means[cell]) for value, cell in sorted(cells.items()) if cell in means]
        path = " ".join(f"{across(value):.1f},{up(mean.mean):.1f}" for value, mean in known)
        parts.append(tag("polyline", points=path, class_=f"line {color}"))
        for value, mean in known:
            x = across(value)
            if mean.low is not None and mean.high is not None:
                parts.append(tag("line", x1=x, x2=x, y1=up(mean.low), y2=up(mean.high), class_=f"bar {color}"))
            title = tag("title", escape(f"{rest}: {mean.mean:.6g}"))
            parts.append(tag("circle", title, cx=x, cy=up(mean.mean), r=3.0, class_=color))
    return picture(WIDTH, 252, f"{metric} over {axis}", parts) + legend(list(groups))


def legend(names: list[str]) -> str:
    """The legend of colors; empty for a single name."""
    if len(names) < 2:
        return ""
    entries = [f'<li class="c{index % COLORS}">{escape(name)}</li>' for index, name in enumerate(names)]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _tick(x: float, text: str, top: float, bottom: float) -> str:
    line = tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
    return line + tag("text", escape(text), x=x, y=bottom + 16, text_anchor="middle")


POINTS = 120
"""Largest number of drawn points per curve; each is the mean of neighboring logged points."""
HEIGHT = 250.0

Band = list[tuple[float, float, float, float]]
"""Points (step, mean, lowest, highest) over the seeds."""


def bands_of(content: Content) -> dict[str, dict[str, Band]]:
    """Bands by logged metric and cell; metrics with fewer than two points have none."""
    bands: dict[str, dict[str, Band]] = {}
    for cell in content.results.cells:
        runs = content.results.curves(cell)
        for name in dict.fromkeys(name for run in runs for name in run):
            band = _band([run[name] for run in runs if name in run])
            if len(band) > 1:
                bands.setdefault(name, {})[cell] = band
    return dict(sorted(bands.items(), key=lambda pair: (pair[0] != "loss", pair[0])))


def _band(curves: Sequence[tuple[list[int], list[float | None]]]) -> Band:
    by_step: dict[int, list[float]] = {}
    for steps, values in curves:
        for step, value in zip(steps, values, strict=True):
            if value is not None:
                by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    size = -(-len(steps) // POINTS) or 1
    band = []
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        each = [by_step[step] for step in part]
        columns = (fmean(map(fmean, each)), fmean(map(min, each)), fmean(map(max, each)))
        band.append((fmean(part), *columns))
    return band


def curve(name: str, bands: dict[str, Band], cells: Sequence[str]) -> str:
    """The curves of one metric, one color per cell.

    Args:
        name: name of the metric.
        bands: band per cell.
        cells: all cells of the study, whose order determines the colors.
    """
    points = [point for band in bands.values() for point in band]
    across = Scale.around([point[0] for point in points], 60, WIDTH - 14)
    edges = [value for point in points for value in point[2:]]
    up = Scale.around(edges, HEIGHT, TOP, log=min(edges) > 0 and max(edges) > 50 * min(edges))
    parts = []
    for tick in across.ticks():
        parts.append(tag("line", x1=across(tick), x2=across(tick), y1=TOP, y2=HEIGHT, class_="grid"))
        parts.append(tag("text", f"{tick:.6g}", x=across(tick), y=HEIGHT + 16, text_anchor="middle"))
    for tick in up.ticks():
        parts.append(tag("line", x1=60.0, x2=WIDTH - 14, y1=up(tick), y2=up(tick), class_="grid"))
        parts.append(tag("text", f"{tick:.3g}", x=52, y=up(tick) + 4, text_anchor="end"))
    for cell, band in bands.items():
        color = f"c{list(cells).index(cell) % COLORS}"
        top = [f"{across(step):.1f},{up(high):.1f}" for step, _, _, high in band]
        bottom = [f"{across(step):.1f},{up(low):.1f}" for step, _, low, _ in reversed(band)]
        parts.append(tag("polygon", points=" ".join(top + bottom), class_=f"band {color}"))
        middle = " ".join(f"{across(step):.1f},{up(mean):.1f}" for step, mean, _, _ in band)
        parts.append(tag("polyline", tag("title", escape(cell)), points=middle, class_=f"line {color}"))
    return picture(WIDTH, HEIGHT + 24, f"{name} over the steps", parts) + legend(list(cells))
