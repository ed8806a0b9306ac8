"""The report as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from html import escape

from scoredistill.studies.report.content import COSTS, Content, interval, number
from scoredistill.studies.statistics import Difference, Mean


def summary_csv(content: Content) -> str:
    """One row per cell and metric."""
    axes = list(content.results.record.axes)
    rows = []
    for row in content.rows:
        mean = row.mean
        known = [0, "", "", "", ""] if mean is None else [mean.n, mean.mean, mean.error, mean.low, mean.high]
        rows.append([row.cell, *_settings(content, row.cell), row.metric, *known])
    return _csv(["cell", *axes, "metric", "n", "mean", "standard_error", "low", "high"], rows)


def comparisons_csv(content: Content) -> str:
    """One row per comparison."""
    rows = []
    for each in content.comparisons:
        d = each.difference
        known = [d.n, d.mean, d.low, d.high, d.effect, d.p, each.p] if d else [0, *[""] * 6]
        rows.append([each.cell, each.metric, each.axis, each.baseline, *known])
    names = ["cell", "metric", "axis", "baseline", "n", "difference", "low", "high", "effect", "p", "p_corrected"]
    return _csv(names, rows)


def results_csv(content: Content) -> str:
    """One row per run and metric, including missing values."""
    results = content.results
    rows = []
    for run in results.record.runs:
        for metric in results.metrics:
            value = results.values(run.cell, metric).get(run.seed) if run.state == "done" else None
            rows.append([run.cell, *_settings(content, run.cell), run.seed, metric, value, run.state, run.message])
    return _csv(["cell", *results.record.axes, "seed", "metric", "value", "state", "message"], rows)


def markdown(content: Content) -> str:
    """The report without pictures and curves."""
    results = content.results
    command = " ".join(content.command.replace("`", "'").split())  # characters that would end the code span
    parts = [f"# {_plain(results.record.name)}", f"{content.state}. Repeat with `{command}`", *content.notes()]
    if results.missing:
        rows = [[m.cell, str(m.seed), m.what, m.why] for m in results.missing]
        parts += ["## What is missing", _table(["cell", "seed", "what", "why"], rows)]
    for metric in results.metrics:
        parts += [f"## {_plain(metric)}", _table(head(content), figure_rows(content, metric))]
    names = [name for name in COSTS if any(name in cost for cost in content.costs.values())]
    rows = [[cell, *(number(cost.get(name)) for name in names)] for cell, cost in content.costs.items()]
    parts += ["## Cost of a run", _table(["cell", *(COSTS[name] for name in names)], rows)]
    return "\n\n".join(parts) + "\n"


def _columns(content: Content) -> dict[str, bool]:
    """The columns of a metric's table, and whether this report has values in them."""
    available = content.available
    compared = {"against": available.differences, "difference": available.differences}
    compared |= {"its interval": available.difference_intervals, "d": available.effects, "p": available.tests}
    return {"cell": True, "n": True, "mean": True, "95% interval": available.intervals, **compared}


def head(content: Content) -> list[str]:
    """Names of a metric's columns; empty columns are left out."""
    return [name for name, shown in _columns(content).items() if shown]


def figure_rows(content: Content, metric: str) -> list[list[str]]:
    """Rows of a metric under `head`, one per cell and comparison."""
    shown = list(_columns(content).values())
    return [list(itertools.compress(row, shown)) for row in _figure_rows(content, metric)]


def _figure_rows(content: Content, metric: str) -> list[list[str]]:
    rows = []
    for cell in content.results.cells:
        mean = content.row(cell, metric).mean
        known = ["0", "", ""] if mean is None else [str(mean.n), mean_text(mean), interval(mean.low, mean.high)]
        compared = [
            [each.baseline, *(_difference(each.difference, each.p) if each.difference else [""] * 4)]
            for each in content.compared(cell, metric)
        ]
        for i, against in enumerate(compared or [["baseline" if mean is not None else "", "", "", "", ""]]):
            rows.append([*([cell, *known] if i == 0 else [""] * 4), *against])
    return rows


def mean_text(mean: Mean | None) -> str:
    """A mean and its standard error."""
    if mean is None:
        return ""
    return number(mean.mean) + ("" if mean.error is None else f" ± {mean.error:.2g}")


def _difference(difference: Difference, p: float | None) -> list[str]:
    low, high = difference.low, difference.high
    return [number(difference.mean), interval(low, high), number(difference.effect), number(p)]


def _settings(content: Content, cell: str) -> list[str]:
    return [content.results.settings[cell][axis] for axis in content.results.record.axes]


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return text.getvalue()


def _plain(text: str) -> str:
    """Text without HTML, line breaks or cell separators for Markdown."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    clean = [[_plain(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in clean)
