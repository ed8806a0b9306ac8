"""How commands end early: usage errors in one sentence, with the key or the file they are about, and interruptions."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from jsonargparse import Namespace

from scoredistill import start_up
from scoredistill.ranges import RangeError, require

LONGEST = 300
"""Maximum number of characters of a parser's message."""
PARSERS = ("argparse", "jsonargparse")


class UsageError(Exception):
    """A mistake in the options, the recipe or a named file; the message has the remedy."""


def essence(error: BaseException) -> str:
    """The message of a parser's error on one line.

    `checking` reports the usual mistakes in recipes before. The remaining errors are mostly messages of constructors,
    which the parser wraps into a list of all types that it tried.

    Args:
        error: the parser's error.
    """
    first = cause(error)
    text = " ".join(str(getattr(first, "message", None) or first).split())
    owner = constructor(first)
    text = f"{owner}: {text}" if owner is not None and owner not in text else text
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def cause(error: BaseException) -> BaseException:
    """The first error of a chain that was not raised by a parser; the error itself if all were."""
    each: BaseException | None = error
    seen: list[BaseException] = []
    while each is not None and all(each is not other for other in seen):  # a chain may contain a cycle
        if not _raised_by_parser(each):
            return each
        seen.append(each)
        each = each.__cause__ or each.__context__
    return error


def constructor(error: BaseException) -> str | None:
    """The name of the class whose constructor raised the error, or None."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code.co_name in ("__init__", "__post_init__") and "self" in frame.f_locals:
            kind = type(frame.f_locals["self"])
            return None if kind.__module__.startswith("scoredistill.cli.") else kind.__name__
    return None


def _raised_by_parser(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__")).split(".")[0] in PARSERS


def raise_with_key(error: BaseException, config: Namespace) -> None:
    """Raise a constructor's error about a setting again, with the setting's full key.

    Args:
        error: caught while the objects were built; returns if its cause is not a `RangeError`.
        config: all settings.

    Raises:
        UsageError: with the key in place of the name, if only one setting matches.
    """
    cause: BaseException | None = error
    while not isinstance(cause, RangeError):  # jsonargparse wraps a constructor's error once per optional type
        if cause is None:
            return
        cause = cause.__cause__
    keys = [key for key, value in _settings(config, "") if _matches(key, value, cause)]
    text = str(cause)
    raise UsageError(f"{keys[0]}{text.removeprefix(cause.name)}" if len(keys) == 1 else text) from error


def _settings(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """All settings below a key, with their keys on the command line."""
    if isinstance(value, Namespace):
        value = vars(value)
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _settings(part, key if name == "init_args" else f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _settings(part, f"{key}[{index}]")


def _matches(key: str, value: Any, error: RangeError) -> bool:
    if key.rpartition(".")[2] != error.name or isinstance(value, str | bool):
        return False
    try:
        require(error.allowed, **{error.name: value})
    except (RangeError, TypeError) as raised:
        return str(raised) == str(error)
    return False


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
