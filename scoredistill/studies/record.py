"""The record of a study's runs, a file that `ablate` writes and the report reads.

runs/studies/points/  study.yaml  study.json  runs/<cell>/seed-0/0/ ...  report.html  report.md  *.csv
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scoredistill.files import load_json, within, write_json_atomically
from scoredistill.training.run_folder import RunFolder

RECORD = "study.json"
"""File name in the study's folder."""

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class RunRecord:
    """One run of a study.

    Args:
        cell: name of its cell, such as `objective=VSD,guidance=7.5`.
        settings: name of the cell's value per axis.
        seed: its seed; every cell is run with the same seeds.
        state: its state. Only done runs have metrics in metrics.json.
        folder: parent of its run folder, relative to the study's folder.
        run: its run folder, relative to the study's folder; None before it has one.
        message: why it failed, on one line; None if it did not fail.
    """

    cell: str
    settings: Mapping[str, str]
    seed: int
    state: State
    folder: str
    run: str | None = None
    message: str | None = None

    def run_folder(self, study: str | Path) -> RunFolder | None:
        """Its run folder in the study's folder; None before it has one."""
        return None if self.run is None else RunFolder(Path(study) / self.run)


@dataclass(frozen=True)
class StudyRecord:
    """The current state of a study.

    Args:
        name: name of the study.
        source: path of its file.
        axes: names of the values per axis, in order.
        seeds: seeds of every cell.
        baseline: per axis, the value that the others are compared with.
        metrics: names of the metrics in metrics.json that the report contains, in order; empty: all.
        runs: every run, cell by cell, in the order of the axes.
    """

    name: str
    source: str
    axes: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    baseline: Mapping[str, str]
    metrics: Sequence[str]
    runs: Sequence[RunRecord]

    @classmethod
    def read(cls, study: str | Path) -> StudyRecord:
        """Read a study's folder.

        Raises:
            OSError: if the folder has no record.
            ValueError: if the record is invalid, or names a run outside the folder.
        """
        path = Path(study) / RECORD
        content = load_json(path, dict)
        try:
            record = cls(**content | {"runs": [RunRecord(**run) for run in content["runs"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a record of a study: {error}") from error
        for seed in (*record.seeds, *(run.seed for run in record.runs)):
            if type(seed) is not int:
                raise ValueError(f"{path} is not a record of a study: the seed {seed!r} is not an integer")
        for folder in (place for run in record.runs for place in (run.folder, run.run) if place is not None):
            if not within(Path(study) / folder, study):
                raise ValueError(f"{path}: the run {folder} is outside the study's folder and is not read")
        return record

    def write(self, study: str | Path) -> None:
        """Write the record into a study's folder, atomically."""
        write_json_atomically(Path(study) / RECORD, asdict(self))
