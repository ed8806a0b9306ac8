"""What the runs of a study have left behind: metrics, curves, pictures, cost; and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from scoredistill.files import Kind, load_json
from scoredistill.studies.record import RunRecord, StudyRecord
from scoredistill.training.curves import Curve, read_curves

NOT_METRICS = ("seconds",)
"""Metrics that are about the run's cost, not about what it made."""
PICTURES = ("grid.png", "turntable*.webp", "pictures/step_*.png")
"""The first kind that there is stands for a run, the last file of it."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Missing:
    """Something that the report is without.

    Args:
        cell, seed: of the run.
        what: `the run`, or a figure's name.
        why: on one line.
    """

    cell: str
    seed: int
    what: str
    why: str


class Results:
    """The results of a study's folder, as it stands.

    Args:
        folder: of the study.

    Raises:
        OSError: if there is no record in it.
        ValueError: if that is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = StudyRecord.read(self.folder)
        self._damaged: list[Missing] = []

    @property
    def cells(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(run.cell for run in self.record.runs))

    @cached_property
    def settings(self) -> dict[str, Mapping[str, str]]:
        """By cell, its values by axis."""
        return {run.cell: run.settings for run in self.record.runs}

    @cached_property
    def done(self) -> list[RunRecord]:
        """The runs that have finished."""
        return [run for run in self.record.runs if run.state == "done"]

    @cached_property
    def _metrics(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(run.cell, run.seed): self._read(run, "metrics.json", dict) for run in self.done}

    def _read(self, run: RunRecord, name: str, kind: type[Kind]) -> Kind:
        """A file of a run, empty where there is none; one that is damaged is recorded as missing."""
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
        """What the report is about: as the study says, or all metrics but those with a standard error's name."""
        if self.record.metrics:
            return list(self.record.metrics)
        found = dict.fromkeys(name for metrics in self._metrics.values() for name in metrics)
        return [name for name in found if name not in NOT_METRICS and not name.endswith("_se")]

    def values(self, cell: str, metric: str) -> dict[int, float]:
        """A figure by seed, where it is there and finite."""
        known = {seed: metrics.get(metric) for (name, seed), metrics in self._metrics.items() if name == cell}
        return {seed: float(value) for seed, value in sorted(known.items()) if _is_number(value)}

    def costs(self, cell: str) -> list[Metrics]:
        """What each finished run of a cell cost, where it is known."""
        return [cost for (name, _), cost in self._costs.items() if name == cell and cost]

    @cached_property
    def _costs(self) -> dict[tuple[str, int], Metrics]:
        known = {(run.cell, run.seed): self._read(run, "cost.json", dict) for run in self.done}
        return {key: {n: float(value) for n, value in cost.items() if _is_number(value)} for key, cost in known.items()}

    @cached_property
    def made_with(self) -> Mapping[str, object]:
        """The versions of the first finished run that has them, empty where none has."""
        known = [entry for run in self.done for entry in self._read(run, "versions.json", list)[-1:]]
        return next((entry for entry in known if isinstance(entry, dict)), {})

    def curves(self, cell: str) -> list[dict[str, Curve]]:
        """The logged metrics of each finished run of a cell over its steps."""
        return self._curves[cell]

    @cached_property
    def _curves(self) -> dict[str, list[dict[str, Curve]]]:
        found: dict[str, list[dict[str, Curve]]] = {cell: [] for cell in self.cells}
        for run in self.done:
            folder, damaged = run.run_folder(self.folder), list[str]()
            if folder is not None:
                found[run.cell].append(read_curves(folder.path, damaged))
            self._damaged += [Missing(run.cell, run.seed, "curves", why) for why in damaged]
        return found

    @cached_property
    def missing(self) -> list[Missing]:
        """Everything that is not there, run by run, and the files that are damaged."""
        found = []
        _ = self._costs, self.made_with, self._curves  # reading them records what is damaged
        for run in self.record.runs:
            if run.state != "done":
                why = run.message or {"waiting": "has not been run", "running": "is not finished"}.get(
                    run.state, "failed"
                )
                found.append(Missing(run.cell, run.seed, "the run", why))
                continue
            for metric in self.metrics:
                metrics = self._metrics[run.cell, run.seed]
                value = metrics.get(metric)
                if not _is_number(value):
                    why = "is not finite" if metric in metrics and value is None else f"is {value!r}"
                    why = why if metric in metrics else "is not in metrics.json"
                    found.append(Missing(run.cell, run.seed, metric, why))
        return found + self._damaged

    @property
    def damaged(self) -> list[str]:
        """A line on each file that cannot be read."""
        return [each.why for each in self.missing if each in self._damaged]

    def pictures(self, cell: str) -> Iterator[tuple[int, Path]]:
        """Pictures that stand for a cell, with their run's seed: of each of its runs the last one of its first kind."""
        for run in self.done:
            folder = run.run_folder(self.folder)
            if run.cell == cell and folder is not None:
                found = next((files for kind in PICTURES if (files := sorted(folder.path.glob(kind)))), None)
                if found:
                    yield run.seed, found[-1]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
