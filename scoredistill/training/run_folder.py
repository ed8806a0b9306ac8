"""Run folders: one numbered folder for each run, which holds everything that it leaves behind.

runs/quickstart/0/  config.yaml  versions.json  metrics.json  checkpoints/  logs/  predictions/0/  ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: where it is.
    """

    path: Path

    @classmethod
    def create(cls, output: str | Path) -> RunFolder:
        """Make the next free one of output/0, output/1, ...

        Raises:
            OSError: if it cannot be made.
        """
        return cls(numbered_folder(output))

    @classmethod
    def newest(cls, output: str | Path) -> RunFolder | None:
        """The run of the highest number that has a checkpoint, or None."""
        runs = [cls(path) for path in numbered(Path(output))]
        return next((run for run in reversed(runs) if run.last_checkpoint() is not None), None)

    @classmethod
    def around(cls, checkpoint: str | Path) -> RunFolder | None:
        """The run that a checkpoint file lies in, or None where it lies elsewhere."""
        parent = Path(checkpoint).absolute().parent
        folder = cls(parent.parent if parent.name == "checkpoints" else parent)
        return cls(_as_written(folder.path)) if folder.config.is_file() else None

    @property
    def config(self) -> Path:
        """The resolved recipe, which `--config` takes."""
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        """What the run was made with."""
        return self.path / "versions.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The checkpoint written last, or None."""
        files = [path for path in self.checkpoints.glob("*.ckpt") if path.is_file()]
        # Where the clock is too coarse to tell, last.ckpt is the last.
        return max(files, key=lambda path: (path.stat().st_mtime_ns, path.name == "last.ckpt"), default=None)


def make_folder(path: str | Path) -> list[Path]:
    """Make a folder with the parents that it lacks.

    Returns:
        Those that were not there, the innermost first.

    Raises:
        OSError: if it cannot be made; what was made by then is removed.
    """
    path = Path(path)
    if path.is_dir():
        return []
    made = make_folder(path.parent)
    try:
        path.mkdir()
    except OSError:
        if path.is_dir():  # another process was faster
            return made
        for parent in made:
            parent.rmdir()
        raise
    return [path, *made]


def numbered_folder(parent: str | Path) -> Path:
    """Make the next free one of parent/0, parent/1, ...; safe against others who do the same at the same time.

    Raises:
        OSError: if it cannot be made.
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
    """The folders of a parent whose names are numbers, in order."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _as_written(path: Path) -> Path:
    """Relative to the working directory where it lies in it, which is shorter to read and to type."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
