"""Run folders: one numbered folder per run, with all of its files.

runs/quickstart/0/  config.yaml  versions.json  metrics.json  checkpoints/  logs/  predictions/0/  ...
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: path of the folder.
    """

    path: Path

    @classmethod
    def newest(cls, output: str | Path) -> RunFolder | None:
        """The run with the highest number that has a checkpoint, or None."""
        runs = [cls(path) for path in numbered(Path(output))]
        return next((run for run in reversed(runs) if run.last_checkpoint() is not None), None)

    @classmethod
    def around(cls, checkpoint: str | Path) -> RunFolder | None:
        """The run that contains a checkpoint file, or None."""
        parent = Path(checkpoint).absolute().parent
        folder = cls(parent.parent if parent.name == "checkpoints" else parent)
        return cls(_as_written(folder.path)) if folder.config.is_file() else None

    @property
    def config(self) -> Path:
        """The resolved recipe, a file for `--config`."""
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        """Versions of the software that executed the run."""
        return self.path / "versions.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The most recent checkpoint, or None."""
        files = [path for path in self.checkpoints.glob("*.ckpt") if path.is_file()]
        # If the modification times are equal, last.ckpt is the most recent.
        return max(files, key=lambda path: (path.stat().st_mtime_ns, path.name == "last.ckpt"), default=None)


def make_folder(path: str | Path) -> list[Path]:
    """Create a folder and its missing parents.

    Returns:
        The created folders, the innermost first.

    Raises:
        OSError: if it cannot be created; folders created so far are removed.
    """
    path = Path(path)
    if path.is_dir():
        return []
    created = make_folder(path.parent)
    try:
        path.mkdir()
    except OSError:
        if path.is_dir():  # another process created it first
            return created
        for parent in created:
            parent.rmdir()
        raise
    return [path, *created]


def numbered_folder(parent: str | Path) -> Path:
    """Create the next free folder of parent/0, parent/1, ...; safe with concurrent processes.

    Raises:
        OSError: if it cannot be created.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in numbered(parent)), default=-1) + 1
    while True:
        folder = parent / str(number)
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def numbered(parent: Path) -> list[Path]:
    """The numbered subfolders of a folder, in order."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _as_written(path: Path) -> Path:
    """The path relative to the working directory if it is inside, which is shorter to read and to type."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


Curve = tuple[list[int], list[float | None]]
"""Steps in order, and the metric's value at each; None where it was not finite."""

NOT_CURVES = {"epoch", "step"}


def read_curves(run: Path, damaged: list[str] | None = None) -> dict[str, Curve]:
    """Read every logged metric over training steps.

    A resumed run has one file per part; where parts overlap, the later part is used.

    Args:
        run: the run folder.
        damaged: receives one line per file that cannot be read.
    """
    points: dict[str, dict[int, float | None]] = {}
    for path in sorted(run.glob("**/version_*/metrics.csv"), key=_part):
        try:
            rows = list(_rows(path))
        except (OSError, ValueError, csv.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            if damaged is not None:
                damaged.append(f"{path} is damaged: {why}")
            continue
        first = min((step for step, _ in rows), default=0)
        for curve in points.values():
            for step in [step for step in curve if step >= first]:
                del curve[step]
        for step, metrics in rows:
            for name, value in metrics.items():
                points.setdefault(name, {})[step] = value
    curves = {name: sorted(curve.items()) for name, curve in sorted(points.items()) if curve}
    return {name: ([step for step, _ in curve], [value for _, value in curve]) for name, curve in curves.items()}


def _part(path: Path) -> int:
    number = path.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _rows(path: Path) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Steps with their logged metrics. The last line of an active run may be incomplete and is then skipped.

    Raises:
        OSError, ValueError, csv.Error: if the file cannot be read or is not a metrics file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise ValueError("it has no column `step`")
        for row in reader:
            try:
                metrics = {name: float(text) for name, text in row.items() if text and name not in NOT_CURVES}
                step = int(row["step"])
            except (KeyError, TypeError, ValueError):
                continue
            yield step, {name: value if math.isfinite(value) else None for name, value in metrics.items()}
