"""Results of a study's runs: metrics, curves, pictures, cost and missing results, and comparisons between cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from scoredistill.files import Kind, load_json
from scoredistill.studies.record import RunRecord, StudyRecord
from scoredistill.studies.statistics import Difference, Mean, holm, mean_of, paired
from scoredistill.training.run_folder import Curve, read_curves

NOT_METRICS = ("seconds",)
"""Metrics of the cost of a run, which are reported separately."""
PICTURES = ("grid.png", "turntable*.webp", "pictures/step_*.png")
"""File patterns of pictures; a run is represented by the last file of the first pattern that matches."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Missing:
    """A missing result.

    Args:
        cell, seed: the run.
        what: `the run`, or the name of a metric.
        why: the reason, on one line.
    """

    cell: str
    seed: int
    what: str
    why: str


class Results:
    """The current results of a study.

    Args:
        folder: the study's folder.

    Raises:
        OSError: if the folder has no record.
        ValueError: if the record is invalid.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = StudyRecord.read(self.folder)
        self._damaged: list[Missing] = []

    @property
    def cells(self) -> list[str]:
        """Names of the cells, in order."""
        return list(dict.fromkeys(run.cell for run in self.record.runs))

    @cached_property
    def settings(self) -> dict[str, Mapping[str, str]]:
        """Name of the value per axis, for each cell."""
        return {run.cell: run.settings for run in self.record.runs}

    @cached_property
    def done(self) -> list[RunRecord]:
        """The finished runs."""
        return [run for run in self.record.runs if run.state == "done"]

    @cached_property
    def _metrics(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(run.cell, run.seed): self._read(run, "metrics.json", dict) for run in self.done}

    def _read(self, run: RunRecord, name: str, kind: type[Kind]) -> Kind:
        """Read a file of a run. A missing file is empty; a damaged one is recorded as missing."""
        folder = run.run_folder(self.folder)
        try:
            return kind() if folder is None else load_json(folder.path / name, kind)
        except FileNotFoundError:
            return kind()
        except ValueError as error:
            self._damaged.append(Missing(run.cell, run.seed, name, str(error)))
            return kind()

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the reported metrics: those of the study's file, or all except costs and standard errors."""
        if self.record.metrics:
            return list(self.record.metrics)
        names = dict.fromkeys(name for metrics in self._metrics.values() for name in metrics)
        return [name for name in names if name not in NOT_METRICS and not name.endswith("_se")]

    def values(self, cell: str, metric: str) -> dict[int, float]:
        """A metric of a cell by seed, for the seeds whose value is finite."""
        known = {seed: metrics.get(metric) for (name, seed), metrics in self._metrics.items() if name == cell}
        return {seed: float(value) for seed, value in sorted(known.items()) if _is_number(value)}

    def costs(self, cell: str) -> list[Metrics]:
        """Cost of each finished run of a cell that recorded it."""
        return [cost for (name, _), cost in self._costs.items() if name == cell and cost]

    @cached_property
    def _costs(self) -> dict[tuple[str, int], Metrics]:
        known = {(run.cell, run.seed): self._read(run, "cost.json", dict) for run in self.done}
        return {key: {n: float(value) for n, value in cost.items() if _is_number(value)} for key, cost in known.items()}

    @cached_property
    def versions(self) -> Mapping[str, object]:
        """Software versions of the first finished run that recorded them; empty if none did."""
        entries = [entry for run in self.done for entry in self._read(run, "versions.json", list)[-1:]]
        return next((entry for entry in entries if isinstance(entry, dict)), {})

    def curves(self, cell: str) -> list[dict[str, Curve]]:
        """The logged metrics of each finished run of a cell over its steps."""
        return self._curves[cell]

    @cached_property
    def _curves(self) -> dict[str, list[dict[str, Curve]]]:
        curves: dict[str, list[dict[str, Curve]]] = {cell: [] for cell in self.cells}
        for run in self.done:
            folder = run.run_folder(self.folder)
            damaged = list[str]()
            if folder is not None:
                curves[run.cell].append(read_curves(folder.path, damaged))
            self._damaged += [Missing(run.cell, run.seed, "curves", why) for why in damaged]
        return curves

    @cached_property
    def missing(self) -> list[Missing]:
        """All missing results, run by run, and all damaged files."""
        missing = []
        _ = self._costs, self.versions, self._curves  # reading them records damaged files
        for run in self.record.runs:
            if run.state != "done":
                why = run.message or {"waiting": "has not been run", "running": "is not finished"}.get(
                    run.state, "failed"
                )
                missing.append(Missing(run.cell, run.seed, "the run", why))
                continue
            for metric in self.metrics:
                metrics = self._metrics[run.cell, run.seed]
                value = metrics.get(metric)
                if not _is_number(value):
                    why = "is not finite" if metric in metrics and value is None else f"is {value!r}"
                    why = why if metric in metrics else "is not in metrics.json"
                    missing.append(Missing(run.cell, run.seed, metric, why))
        return missing + self._damaged

    @property
    def damaged(self) -> list[str]:
        """One line per file that cannot be read."""
        return [each.why for each in self.missing if each in self._damaged]

    def pictures(self, cell: str) -> Iterator[tuple[int, Path]]:
        """Pictures of a cell with their seeds, one per finished run (see `PICTURES`)."""
        for run in self.done:
            folder = run.run_folder(self.folder)
            if run.cell == cell and folder is not None:
                paths = next((paths for kind in PICTURES if (paths := sorted(folder.path.glob(kind)))), None)
                if paths:
                    yield run.seed, paths[-1]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
