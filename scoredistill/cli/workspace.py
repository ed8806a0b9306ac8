"""Where a command works: which checkpoint it starts from, and the folder that it writes into."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.training.run_folder import RunFolder, numbered_folder

RESULTS = {"validate": "validation", "test": "test", "predict": "predictions"}
"""Folders in the run folder that evaluations write into, each into a numbered one of its own."""

SHARED = "SCOREDISTILL_RUN_FOLDER"
"""Environment variable that tells the processes that Lightning starts for further devices the first one's folder."""


@dataclass(frozen=True)
class Workspace:
    """The folder of one command.

    Args:
        folder: what it writes into.
        checkpoint: what it starts from, or None.
        fresh: whether this process has made the folder.
    """

    folder: Path
    checkpoint: Path | None
    fresh: bool

    @property
    def run(self) -> RunFolder:
        """The folder as that of a run; for fit only."""
        return RunFolder(self.folder)

    def discard(self) -> None:
        """Remove the folder, if it is this process's own, with the parents that are empty then."""
        if not self.fresh:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in (self.folder.parent, *self.folder.parent.parents):
            try:
                parent.rmdir()
            except OSError:  # not empty
                return


def open_workspace(command: str, output: str, checkpoint: str | None) -> Workspace:
    """Find the checkpoint and make the folder.

    Args:
        command: fit, validate, test or predict.
        output: the parent of run folders.
        checkpoint: a file, a run folder, `last`, or None.

    Raises:
        UsageError: if there is no such checkpoint, or the folder cannot be made.
    """
    file, run = find_checkpoint(output, checkpoint)
    if SHARED in os.environ:
        return Workspace(Path(os.environ[SHARED]), file, fresh=False)
    if command == "fit" and run is not None:
        return Workspace(run.path, file, fresh=False)
    parent = Path(output) if command == "fit" else (run.path if run else Path(output)) / RESULTS[command]
    try:
        return Workspace(numbered_folder(parent), file, fresh=True)
    except OSError as error:
        raise UsageError(
            f"cannot write into {error.filename or parent}: {error.strerror}; choose another folder by --output"
        ) from error


def find_checkpoint(output: str, checkpoint: str | None) -> tuple[Path | None, RunFolder | None]:
    """The file that is meant, and the run that it belongs to.

    Raises:
        UsageError: if there is no such checkpoint.
    """
    if checkpoint is None:
        return None, None
    if checkpoint == "last":
        run = RunFolder.newest(output)
        if run is None:
            raise UsageError(f"no run under {output} has a checkpoint; without --ckpt_path a new run begins")
        return run.last_checkpoint(), run
    path = Path(checkpoint)
    if path.is_dir():
        last = RunFolder(path).last_checkpoint()
        if last is None:
            raise UsageError(f"{path} is no run folder with a checkpoint in it (checkpoints/last.ckpt)")
        return last, RunFolder(path)
    if not path.is_file():
        raise UsageError(f"there is no checkpoint and no run folder {path}")
    return path, RunFolder.around(path)
