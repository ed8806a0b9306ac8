"""Learning curves: the logged metrics of every cell over training steps, as bands over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

from scoredistill.studies.report.content import Content
from scoredistill.studies.report.plots import COLORS, TOP, WIDTH, legend
from scoredistill.studies.report.svg import Scale, picture, tag

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
