"""What is known of a study's runs: the file that `ablate` keeps and the report reads.

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
"""In the study's folder."""

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class RunRecord:
    """One run of a study.

    Args:
        cell: its cell's name, `objective=VSD,guidance=7.5` for example.
        settings: by axis, the name of the cell's value.
        seed: which the runs of all cells under that seed share.
        state: what has become of it. Only what is done has metrics in its folder's metrics.json.
        folder: parent of its run folder, relative to the study's.
        run: its run folder, relative to the study's; None where there is none yet.
        message: why it failed, on one line; None where it did not.
    """

    cell: str
    settings: Mapping[str, str]
    seed: int
    state: State
    folder: str
    run: str | None = None
    message: str | None = None

    def run_folder(self, study: str | Path) -> RunFolder | None:
        """Its run folder in the study's folder, or None where there is none yet."""
        return None if self.run is None else RunFolder(Path(study) / self.run)


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands.

    Args:
        name: of the study.
        source: its file.
        axes: by axis, its values' names, in order.
        seeds: of every cell.
        baseline: by axis, the value that the others are compared with.
        metrics: names of the metrics in metrics.json that the report is about, in order; empty: all that there are.
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
            OSError: if it has no record.
            ValueError: if that is none, or names a run outside the folder.
        """
        path = Path(study) / RECORD
        content = load_json(path, dict)
        try:
            record = cls(**content | {"runs": [RunRecord(**run) for run in content["runs"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no record of a study: {error}") from error
        for seed in (*record.seeds, *(run.seed for run in record.runs)):
            if type(seed) is not int:
                raise ValueError(f"{path} is no record of a study: {seed!r} is no seed")
        for folder in (place for run in record.runs for place in (run.folder, run.run) if place is not None):
            if not within(Path(study) / folder, study):
                raise ValueError(f"{path}: the run {folder} lies outside the study's folder; nothing there is read")
        return record

    def write(self, study: str | Path) -> None:
        """Write it into a study's folder, atomically."""
        write_json_atomically(Path(study) / RECORD, asdict(self))
