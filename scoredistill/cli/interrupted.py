"""Being stopped from outside: one exception, and signals that are noted even where the code that they meet goes on."""

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


class Stops:
    """Notes the signals that ask this process to stop, and raises KeyboardInterrupt for each.

    The exception alone is not enough: what is imported meanwhile may turn it into an ImportError, and a finalizer may
    swallow it.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code of the first signal since `watch`, or None."""
        self._before: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Begin to note them; a signal that was ignored stays so."""
        start_up.signals_back()
        self.code = None
        if threading.current_thread() is threading.main_thread():
            for number in start_up.STOPS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._note)

    def leave(self, number: signal.Signals) -> None:
        """Handle one of them as before again."""
        if number in self._before:
            signal.signal(number, self._before.pop(number))

    def end(self) -> None:
        """Handle all of them as before again, and forget what was noted."""
        self.code = None
        for number in list(self._before):
            self.leave(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.code = self.code or 128 + number
        raise KeyboardInterrupt


STOPS = Stops()
"""Of this process."""
