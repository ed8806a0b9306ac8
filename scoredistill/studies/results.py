"""What the runs of a study have left behind: figures, curves, pictures, cost; and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scoredistill.studies.files import read_note
from scoredistill.studies.record import RunRecord, StudyRecord

NOT_METRICS = ("seconds",)
"""Figures that are about the run's cost, not about what it made."""
PICTURES = ("grid.png", "turntable*.webp", "pictures/step_*.png")
"""The first kind that there is stands for a run, the last file of it."""

Figures = Mapping[str, float]


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
    def _figures(self) -> dict[tuple[str, int], Figures]:
        return {(run.cell, run.seed): self._note(run, "metrics.json") for run in self.done}

    def _note(self, run: RunRecord, name: str) -> dict[str, float]:
        folder = run.run_folder(self.folder)
        return {} if folder is None else read_note(folder.path / name)

    @cached_property
    def metrics(self) -> list[str]:
        """What the report is about: as the study says, or all figures but those with a standard error's name."""
        if self.record.metrics:
            return list(self.record.metrics)
        found = dict.fromkeys(name for figures in self._figures.values() for name in figures)
        return [name for name in found if name not in NOT_METRICS and not name.endswith("_se")]

    def values(self, cell: str, metric: str) -> dict[int, float]:
        """A figure by seed, where it is there and finite."""
        known = {seed: figures.get(metric) for (name, seed), figures in self._figures.items() if name == cell}
        return {
            seed: float(value) for seed, value in sorted(known.items()) if value is not None and math.isfinite(value)
        }

    def costs(self, cell: str) -> list[Figures]:
        """What each finished run of a cell cost, where it is known."""
        known = [self._note(run, "cost.json") for run in self.done if run.cell == cell]
        return [cost for cost in known if cost]

    @cached_property
    def missing(self) -> list[Missing]:
        """Everything that is not there, run by run."""
        found = []
        for run in self.record.runs:
            if run.state != "done":
                why = run.message or {"waiting": "has not been run", "running": "is not finished"}.get(
                    run.state, "failed"
                )
                found.append(Missing(run.cell, run.seed, "the run", why))
                continue
            for metric in self.metrics:
                value = self._figures[run.cell, run.seed].get(metric)
                if value is None or not math.isfinite(value):
                    why = "is not in metrics.json" if value is None else f"is {value}"
                    found.append(Missing(run.cell, run.seed, metric, why))
        return found

    def picture(self, cell: str) -> Path | None:
        """The last picture of the cell's first finished run that has one."""
        for run in self.done:
            folder = run.run_folder(self.folder)
            if run.cell == cell and folder is not None:
                found = next((files for kind in PICTURES if (files := sorted(folder.path.glob(kind)))), None)
                if found:
                    return found[-1]
        return None

    def finished_folders(self, cell: str) -> Sequence[Path]:
        """The run folders of a cell's finished runs."""
        folders = [run.run_folder(self.folder) for run in self.done if run.cell == cell]
        return [folder.path for folder in folders if folder is not None]
