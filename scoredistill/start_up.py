"""Set-up of the process before anything large is imported: signal handlers and standard streams."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def prepare() -> None:
    """Prepare the process for a long run that does not depend on its terminal."""
    _reopen()
    sys.stdout, sys.stderr = lasting(1, sys.stdout), lasting(2, sys.stderr)
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # and not ignored, as by nohup
            signal.signal(number, _end)


def restore_signals() -> None:
    """Restore Python's handlers: from here on there may be files to clean up.

    Until then a signal ends the process at once. A KeyboardInterrupt would be lost: one that is raised while numpy or
    torch is imported becomes an ImportError, or leaves the library half imported.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"scoredistill: interrupted\n")
    finally:
        os._exit(128 + number)  # what shells report for the signal


def _reopen() -> None:
    """Open closed standard streams on the null device: the next file would get their number, and their output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number, this one
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for as long as the process lives


def lasting(number: int, given: Any) -> Any:
    """A stream that never fails: what cannot be encoded is escaped, what cannot be written is dropped.

    Args:
        number: of the file, which stays open.
        given: the stream that is there, whose encoding and buffering are kept; None: none is.
    """
    if given is not None and not isinstance(given, io.TextIOWrapper):  # not Python's own
        return given
    raw = io.BufferedWriter(_Lossy(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw,
        encoding="utf-8" if given is None else given.encoding,
        errors="backslashreplace",
        line_buffering=given is not None and given.line_buffering,
        write_through=given is not None and given.write_through,
    )


class _Lossy(io.FileIO):
    """A stream whose errors are ignored: a reader that has gone or a full disk must not end a run."""

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes
