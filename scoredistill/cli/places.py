"""Finds the key of a setting that a constructor refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError
from scoredistill.ranges import RangeError, require


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
