"""The checkpoint that a command starts from, and the folder that it writes into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.cli.ranks import SHARED
from scoredistill.files import reason, remove_partial
from scoredistill.processes import FolderLock, InUseError
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.run_folder import RunFolder, make_folder, numbered_folder

RESULTS = {"validate": "validation", "test": "test", "predict": "predictions"}
"""Folders in the run folder for evaluations; each evaluation writes into a new numbered subfolder."""
OF_OTHERS = [(name,) for name in (*RESULTS.values(), "export", "view")]
"""Folders in the run folder that other commands may write into while fit runs."""


@dataclass(frozen=True)
class Start:
    """The start of a command; empty for a new run.

    Args:
        checkpoint: a file.
        run: of the checkpoint; None: it is not in a run folder.
        step: number of generator steps of the checkpoint.
    """

    checkpoint: Path | None = None
    run: RunFolder | None = None
    step: int = 0


@dataclass(frozen=True)
class Workspace:
    """The folder of one command.

    Args:
        folder: the folder that the command writes into.
        start: the checkpoint that it starts from.
        made: the folder and its parents, as far as this process created them, the innermost first.
        lock: of the folder, for `fit` on rank 0.
    """

    folder: Path
    start: Start
    made: Sequence[Path]
    lock: FolderLock | None = None

    @property
    def run(self) -> RunFolder:
        """The folder as a run folder; for `fit` only."""
        return RunFolder(self.folder)

    def discard(self) -> None:
        """Remove the folder if this process created it, and its created parents if they are empty."""
        self.close()
        if not self.made:
            return
        shutil.rmtree(self.made[0], ignore_errors=True)
        for parent in self.made[1:]:
            try:
                parent.rmdir()
            except OSError:  # not empty
                return

    def close(self) -> None:
        """Release the lock, so that other processes can train in the folder."""
        if self.lock is not None:
            self.lock.release()


def open_workspace(command: str, output: str, start: Start, goes_on: bool) -> Workspace:
    """Create the folder.

    Args:
        command: fit, validate, test or predict.
        output: the parent of run folders.
        start: the checkpoint that the command starts from.
        goes_on: whether `fit` resumes the run that it starts from, in its folder.

    Raises:
        UsageError: if the folder cannot be created, or another process trains in it.
    """
    if SHARED in os.environ:
        return Workspace(Path(os.environ[SHARED]), start, made=())
    if command == "fit" and goes_on and start.run is not None:
        return _reopened(start.run.path, start)
    parent = Path(output) if command == "fit" else (start.run.path if start.run else Path(output)) / RESULTS[command]
    try:
        parents = make_folder(parent)
        folder = numbered_folder(parent)
        return Workspace(folder, start, (folder, *parents), FolderLock(folder) if command == "fit" else None)
    except OSError as error:
        raise UsageError(f"cannot write into {reason(error, parent)}; choose another folder by --output") from error


def _reopened(folder: Path, start: Start) -> Workspace:
    """The folder of an existing run, without the partial files of a killed process."""
    try:
        lock = FolderLock(folder)
    except InUseError as error:
        raise UsageError(f"{folder} is being trained by another process: wait for it to end, or stop it") from error
    except OSError as error:
        raise UsageError(f"cannot write into {reason(error, folder)}") from error
    for each in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        if each.relative_to(folder).parts[:1] not in OF_OTHERS:
            remove_partial(each)
    try:  # another process may have written a checkpoint and ended since the first look
        step = find_start("", str(start.checkpoint)).step
    except BaseException:
        lock.release()
        raise
    return Workspace(folder, replace(start, step=step), (), lock)


def find_start(output: str, checkpoint: str | None) -> Start:
    """The checkpoint file, and its run.

    Args:
        output: the parent of run folders.
        checkpoint: a file, a run folder, `last`, or None.

    Raises:
        UsageError: if there is no such checkpoint.
    """
    if checkpoint is None:
        return Start()
    file, run = _find(output, checkpoint)
    try:
        return Start(file, run, int(read_checkpoint(file)["global_step"]))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def _find(output: str, checkpoint: str) -> tuple[Path, RunFolder | None]:
    if checkpoint == "last":
        newest = RunFolder.newest(output)
        last = None if newest is None else newest.last_checkpoint()
        if last is None:
            raise UsageError(f"no run under {output} has a checkpoint; leave out --ckpt_path to start a new run")
        return last, newest
    path = Path(checkpoint)
    if path.is_dir():
        last = RunFolder(path).last_checkpoint()
        if last is None:
            raise UsageError(f"{path} is not a run folder with a checkpoint in it (checkpoints/last.ckpt)")
        return last, RunFolder(path)
    if not path.is_file():
        raise UsageError(f"there is no checkpoint and no run folder {path}")
    return path, RunFolder.around(path)


def locked_folder(folder: Path, command: str) -> FolderLock:
    """Create a folder of several runs and lock it for this process.

    Args:
        folder: for everything that the command writes.
        command: its name, for the message.

    Raises:
        UsageError: if another process uses the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FolderLock(folder)
    except InUseError as error:
        raise UsageError(
            f"another {command} is running in {folder}: wait for it to end, or choose another --output"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write into {reason(error, folder)}; choose another --output") from error
