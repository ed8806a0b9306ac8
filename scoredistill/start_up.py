"""Set-up of signal handlers and standard streams before large libraries are imported."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def prepare() -> None:
    """Prepare the process for a long run that is independent of its terminal."""
    _reopen()
    sys.stdout = robust_stream(1, sys.stdout)
    sys.stderr = robust_stream(2, sys.stderr)
    for number in STOP_SIGNALS:
        # An ignored signal, as under nohup, stays ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def restore_signals() -> None:
    """Restore Python's signal handlers, because from now on an interrupted process may have to clean up files.

    Before, a signal ends the process immediately. A KeyboardInterrupt would be lost: if it is raised while numpy or
    torch is imported, it becomes an ImportError or leaves a partially imported library.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"scoredistill: interrupted\n")
    finally:
        os._exit(128 + number)  # the exit code that shells report for the signal


def _reopen() -> None:
    """Open closed standard streams on the null device; otherwise the next file would get their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # stays open until the process ends


def robust_stream(number: int, stream: Any) -> Any:
    """A text stream that never fails: characters that cannot be encoded are escaped, failed writes are dropped.

    Args:
        number: file descriptor, which stays open.
        stream: the current stream, whose encoding and buffering are kept; None: there is none.
    """
    if stream is not None and not isinstance(stream, io.TextIOWrapper):  # replaced by another program, such as pytest
        return stream
    raw = io.BufferedWriter(_Lossy(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw,
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=stream is not None and stream.line_buffering,
        write_through=stream is not None and stream.write_through,
    )


class _Lossy(io.FileIO):
    """A stream that ignores errors: a closed reader or a full disk must not end a run."""

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes
