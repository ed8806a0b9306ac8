"""Where in a configuration a setting stands that a constructor has refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError
from scoredistill.ranges import RangeError, require


def raise_placed(error: BaseException, config: Namespace) -> None:
    """Raise what a constructor has said of a setting again, under the setting's whole key.

    Args:
        error: caught while everything was built; whatever has another cause than a `RangeError` is let pass.
        config: all settings.

    Raises:
        UsageError: with the key in place of the name, where only one setting can be meant.
    """
    cause: BaseException | None = error
    while not isinstance(cause, RangeError):  # jsonargparse wraps a constructor's error once for every optional type
        if cause is None:
            return
        cause = cause.__cause__
    keys = [key for key, value in _settings(config, "") if _is_meant(key, value, cause)]
    said = str(cause)
    raise UsageError(f"{keys[0]}{said.removeprefix(cause.name)}" if len(keys) == 1 else said) from error


def _settings(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """All settings below a key, with the keys that the command line has for them."""
    if isinstance(value, Namespace):
        value = vars(value)
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _settings(part, key if name == "init_args" else f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _settings(part, f"{key}[{index}]")


def _is_meant(key: str, value: Any, error: RangeError) -> bool:
    if key.rpartition(".")[2] != error.name or isinstance(value, str | bool):
        return False
    try:
        require(error.allowed, **{error.name: value})
    except (RangeError, TypeError) as found:
        return str(found) == str(error)
    return False
