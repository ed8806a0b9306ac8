"""Comparison of every cell with the baseline, seed by seed, for every metric."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scoredistill.studies.results import Results
from scoredistill.studies.statistics import Difference, Mean, holm, mean_of, paired


@dataclass(frozen=True)
class Row:
    """One metric of one cell.

    Args:
        cell: name of the cell.
        metric: name of the metric.
        mean: mean over the cell's seeds; None if no seed has the metric.
    """

    cell: str
    metric: str
    mean: Mean | None


@dataclass(frozen=True)
class Comparison:
    """One metric of a cell compared with that of its baseline.

    Args:
        cell, metric: see `Row`.
        axis: the axis on which the two cells differ.
        baseline: the other cell, with the baseline's value on this axis and equal values on the others.
        seeds: seeds that both have.
        difference: cell minus baseline; None if they have no seed in common.
        p: p-value of the difference, corrected for all comparisons of the report; None without a test.
    """

    cell: str
    metric: str
    axis: str
    baseline: str
    seeds: tuple[int, ...]
    difference: Difference | None
    p: float | None


def rows_of(results: Results) -> list[Row]:
    """Every metric of every cell, ordered by metric."""
    rows = []
    for metric in results.metrics:
        for cell in results.cells:
            values = list(results.values(cell, metric).values())
            rows.append(Row(cell, metric, mean_of(values) if values else None))
    return rows


def comparisons_of(results: Results) -> list[Comparison]:
    """Compare every cell with its baseline on each axis, for every metric.

    A cell's baseline on an axis is the cell with the study's baseline value on that axis and equal values on all other
    axes, so that one setting differs at a time. `holm` corrects the p-values for all comparisons together.
    """
    comparisons = []
    for metric in results.metrics:
        for cell in results.cells:
            for axis, other in _baselines(results, cell).items():
                values, others = results.values(cell, metric), results.values(other, metric)
                seeds = tuple(seed for seed in values if seed in others)
                pair = paired([values[s] for s in seeds], [others[s] for s in seeds]) if seeds else None
                comparisons.append(Comparison(cell, metric, axis, other, seeds, pair, None))
    tested = [i for i, each in enumerate(comparisons) if each.difference is not None and each.difference.p is not None]
    corrected = holm([comparisons[i].difference.p for i in tested])  # type: ignore[union-attr, misc]
    for i, p in zip(tested, corrected, strict=True):
        comparisons[i] = replace(comparisons[i], p=p)
    return comparisons


def _baselines(results: Results, cell: str) -> dict[str, str]:
    """The cell that this one is compared with, per axis."""
    settings = results.settings[cell]
    baselines = {}
    for axis, value in results.record.baseline.items():
        target = {**settings, axis: value}
        other = next((name for name, each in results.settings.items() if dict(each) == target), None)
        if other is not None and other != cell:
            baselines[axis] = other
    return baselines
