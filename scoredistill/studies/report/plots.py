"""Plots of metrics: seeds and intervals of every cell, and a metric over a numeric axis."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from scoredistill.studies.report.content import Content
from scoredistill.studies.report.svg import Scale, picture, tag

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
