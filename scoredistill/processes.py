"""Locks of folders, and child processes that end with their parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

LOCK = ".lock"
"""Lock file of a folder that one process at a time may work in. The system releases it when the process ends."""
PATIENCE = 5.0
"""Seconds after which a folder that is in use is refused: a process that was killed may take a moment to end."""
PAUSE = 0.05
"""Seconds between two tries."""
BOUND = "SCOREDISTILL_BOUND"
"""Environment variable: a process ends when its standard input does, so that it does not outlive its parent."""

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What file systems without locks answer, some of clusters for example."""

_held: set[IO[str]] = set()


class InUseError(Exception):
    """Another process holds a folder's lock."""


class FolderLock:
    """The lock of a folder, held by this process until it is released or the process ends, in whatever way.

    Args:
        folder: which has to exist.
        patience: seconds to wait for another process; None: as long as it takes.

    Raises:
        InUseError: if another process still holds it then.
        OSError: if the lock's file cannot be opened.
    """

    def __init__(self, folder: Path, patience: float | None = PATIENCE) -> None:
        self._file = (folder / LOCK).open("a")
        end = None if patience is None else time.monotonic() + patience
        while not _take(self._file):
            if end is not None and time.monotonic() >= end:
                self._file.close()
                raise InUseError(f"another process is at work in {folder}")
            time.sleep(PAUSE)
        _held.add(self._file)

    def release(self) -> None:
        """Release it; a second call does nothing."""
        if self._file in _held:
            _give(self._file)
            _held.discard(self._file)
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[str]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _give(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            where = Path(file.name).parent
            sys.stderr.write(
                f"warning: {where} is on a file system without locks: let one process at a time work in it\n"
            )
        return True

    def _give(file: IO[str]) -> None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave it to a fork that has the file too

    def _forget() -> None:
        """A fork shares its parent's locks, and would hold them as long as it runs."""
        for file in _held:
            file.close()
        _held.clear()

    os.register_at_fork(after_in_child=_forget)


def start_bound(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that ends when this one does, even by SIGKILL.

    Args:
        command: a program that calls `end_with_parent`.
        environment: of the process; None: this one's.
    """
    bound = {**(os.environ if environment is None else environment), BOUND: "1"}
    # Never written to: its end tells the process that this one has ended.
    return subprocess.Popen(command, env=bound, stdin=subprocess.PIPE)


def run_bound(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run such a process to its end, and forward SIGINT and SIGTERM to it.

    Args:
        command: as for `start_bound`.
        environment: of the process; None: this one's.

    Returns:
        The exit code.
    """
    process = start_bound(command, environment)
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, lambda number, _: process.send_signal(number)) for stop in stops]
    try:
        return process.wait()
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)
        assert process.stdin is not None
        process.stdin.close()


def end_with_parent() -> None:
    """End this process when its parent ends, if `start_bound` or a launcher has started it."""
    if os.environ.get(BOUND):
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os._exit(137)  # as by SIGKILL: nothing more is written
