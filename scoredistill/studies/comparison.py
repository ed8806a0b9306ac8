"""Every cell against the baseline, seed by seed, for every figure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scoredistill.studies.results import Results
from scoredistill.studies.statistics import Difference, Mean, holm, mean_of, paired


@dataclass(frozen=True)
class Row:
    """A figure of a cell.

    Args:
        cell: its name.
        metric: the figure.
        mean: over the cell's seeds; None where there is none.
    """

    cell: str
    metric: str
    mean: Mean | None


@dataclass(frozen=True)
class Comparison:
    """A figure of a cell against that of its baseline.

    Args:
        cell, metric: see `Row`.
        axis: the one on which the two differ.
        baseline: the other cell, which has the baseline's value there and is the same otherwise.
        seeds: that both have.
        difference: cell minus baseline; None where they have no seed in common.
        p: the difference's, corrected for all comparisons of the report; None where there is none.
    """

    cell: str
    metric: str
    axis: str
    baseline: str
    seeds: tuple[int, ...]
    difference: Difference | None
    p: float | None


def rows_of(results: Results) -> list[Row]:
    """Every figure of every cell, figure by figure."""
    rows = []
    for metric in results.metrics:
        for cell in results.cells:
            values = list(results.values(cell, metric).values())
            rows.append(Row(cell, metric, mean_of(values) if values else None))
    return rows


def comparisons_of(results: Results) -> list[Comparison]:
    """Every cell against its baseline on each axis, for every figure.

    On an axis, a cell's baseline is the cell that has the study's baseline value there and agrees with it on all other
    axes, so that one thing is different at a time. P-values are corrected by `holm` for all comparisons together.
    """
    found = []
    for metric in results.metrics:
        for cell in results.cells:
            for axis, other in _baselines(results, cell).items():
                values, others = results.values(cell, metric), results.values(other, metric)
                seeds = tuple(seed for seed in values if seed in others)
                pair = paired([values[s] for s in seeds], [others[s] for s in seeds]) if seeds else None
                found.append(Comparison(cell, metric, axis, other, seeds, pair, None))
    tested = [i for i, each in enumerate(found) if each.difference is not None and each.difference.p is not None]
    corrected = holm([found[i].difference.p for i in tested])  # type: ignore[union-attr, misc]
    for i, p in zip(tested, corrected, strict=True):
        found[i] = replace(found[i], p=p)
    return found


def _baselines(results: Results, cell: str) -> dict[str, str]:
    """By axis, the cell that this one is compared with."""
    settings = results.settings[cell]
    found = {}
    for axis, value in results.record.baseline.items():
        wanted = {**settings, axis: value}
        other = next((name for name, own in results.settings.items() if dict(own) == wanted), None)
        if other is not None and other != cell:
            found[axis] = other
    return found
