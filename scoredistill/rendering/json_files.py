"""JSON as the standard has it, and files of it that may be damaged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeVar

from scoredistill.rendering.files import write_atomically

Kind = TypeVar("Kind", dict[str, Any], list[Any])


def json_text(value: object, indent: int | None = 2) -> str:
    """A value as JSON, which has no NaN and no infinity: they become null.

    Args:
        value: what JSON can hold; paths and others are written as text.
        indent: spaces of each level; None: all on one line.
    """
    finite = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
    return json.dumps(finite, indent=indent, allow_nan=False)


def write_json_atomically(path: str | Path, value: object) -> None:
    """Write a value as JSON, so that a reader never sees half of it.

    Args:
        path: the destination, replaced if it exists.
        value: as for `json_text`.

    Raises:
        OSError: if it cannot be written; it names the file.
    """
    content = f"{json_text(value)}\n".encode()
    write_atomically(path, lambda file: file.write(content))


def read_json(path: Path, kind: type[Kind]) -> Kind | None:
    """A JSON file's content, or None where there is no such file; a warning names a file that is damaged.

    Args:
        path: of the file.
        kind: dict or list, what it has to hold.
    """
    try:
        return load_json(path, kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn(f"{error}; it is left out")
        return None


def load_json(path: Path, kind: type[Kind]) -> Kind:
    """A JSON file's content.

    Args:
        path: of the file.
        kind: dict or list, what it has to hold.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds something else; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(content, kind):
        what = {dict: "an object", list: "a list"}[kind]
        raise ValueError(f"{path} is damaged: it holds {type(content).__name__}, not {what}")
    return content


def set_aside(path: Path) -> None:
    """Rename what cannot be read, a file or whatever is in its place, so that a new one can be written.

    Args:
        path: NAME becomes NAME.damaged, or NAME.damaged_1 and so on where that is taken.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged_{number}")
    path.rename(aside)
    _warn(f"{path} is kept as {aside.name}, and a new one is written")


def update_json(path: Path, kind: type[Kind]) -> Kind:
    """What a JSON file holds that is about to be written anew; one that is damaged is set aside.

    Args:
        path: of the file.
        kind: dict or list.

    Returns:
        The content, empty where there is none.
    """
    try:
        return load_json(path, kind)
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        _warn(str(error))
        set_aside(path)
        return kind()


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")
