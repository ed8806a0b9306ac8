"""Folder locks, and child processes that end with their parent."""

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
"""Name of a folder's lock file. The operating system releases the lock when the process ends."""
PATIENCE = 5.0
"""Seconds to wait for a folder that is in use: a killed process may take a moment to end."""
PAUSE = 0.05
"""Seconds between two attempts."""
BOUND = "SCOREDISTILL_BOUND"
"""Environment variable. If it is set, a process ends when its standard input is closed, that is with its parent."""

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of file systems without locks, such as some of clusters."""

_held: set[IO[str]] = set()


class InUseError(Exception):
    """Another process holds a folder's lock."""


class FolderLock:
    """The lock of a folder, held by this process until it is released or the process ends.

    Args:
        folder: an existing folder.
        patience: seconds to wait for another process; None: without a limit.

    Raises:
        InUseError: if another process holds the lock after this time.
        OSError: if the lock file cannot be opened.
    """

    def __init__(self, folder: Path, patience: float | None = PATIENCE) -> None:
        self._file = (folder / LOCK).open("a")
        end = None if patience is None else time.monotonic() + patience
        while not _take(self._file):
            if end is not None and time.monotonic() >= end:
                self._file.close()
                raise InUseError(f"another process is using {folder}")
            time.sleep(PAUSE)
        _held.add(self._file)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
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
            sys.stderr.write(f"warning: {where} is on a file system without locks: use it in one process at a time\n")
        return True

    def _give(file: IO[str]) -> None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)  # closing the file would leave the lock with a fork that shares it

    def _forget() -> None:
        """Close the locks in a fork, which would hold its parent's locks as long as it runs."""
        for file in _held:
            file.close()
        _held.clear()

    os.register_at_fork(after_in_child=_forget)


def start_bound(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one, even if this one is killed by SIGKILL.

    Args:
        command: a program that calls `end_with_parent`.
        environment: environment of the process; None: that of this process.
    """
    bound = {**(os.environ if environment is None else environment), BOUND: "1"}
    # Standard input is never written to; the process detects by its end that this one has ended.
    return subprocess.Popen(command, env=bound, stdin=subprocess.PIPE)


def run_bound(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run such a process until it ends, and forward SIGINT and SIGTERM to it.

    Args:
        command: see `start_bound`.
        environment: environment of the process; None: that of this process.

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
    """End this process when its parent ends, if it was started by `start_bound` or a launcher."""
    if os.environ.get(BOUND):
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os._exit(137)  # the exit code of SIGKILL; nothing more is written
