"""Interruption from outside: an exception, and a record of signals in case their exception is swallowed."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from scoredistill import start_up

INTERRUPTED, TERMINATED = 130, 143


class Interrupted(Exception):
    """The run was stopped from outside; the message says how to resume it.

    Args:
        message: for the user.
        code: exit code, as shells report for the signal.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class SignalWatch:
    """Records SIGINT and SIGTERM, and raises KeyboardInterrupt for each.

    The exception alone is not enough: an interrupted import may turn it into an ImportError, and a finalizer swallows
    it.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code of the first signal since `watch`, or None."""
        self._before: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Start recording; an ignored signal stays ignored."""
        start_up.restore_signals()
        self.code = None
        if threading.current_thread() is threading.main_thread():
            for number in start_up.STOP_SIGNALS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._record)

    def leave(self, number: signal.Signals) -> None:
        """Restore the previous handler of a signal."""
        if number in self._before:
            signal.signal(number, self._before.pop(number))

    def end(self) -> None:
        """Restore the previous handlers, and clear the record."""
        self.code = None
        for number in list(self._before):
            self.leave(number)

    def _record(self, number: int, _: FrameType | None) -> None:
        self.code = self.code or 128 + number
        raise KeyboardInterrupt


SIGNALS = SignalWatch()
"""The signals of this process."""
