"""Files that appear whole or not at all, and JSON in them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

PARTIAL = ".partial"
"""Suffix of what is not in its place yet; left behind only by a process that was killed, see `remove_partial`."""


def write_atomically(path: str | Path, writer: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its destination, then rename it; missing folders are made.

    Args:
        path: the destination, replaced if it exists.
        writer: is given the open binary file; if it raises, nothing is left behind.

    Raises:
        OSError: if it cannot be written; it names the destination, which is as it was before.
    """
    path = Path(path)
    temporary = _partial(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            raw = _Destination(temporary, "xb")
            try:
                with io.BufferedWriter(raw) as file:
                    writer(cast(BinaryIO, file))
                    file.flush()
                    raw.sync()  # after a power cut the name must not be there without the content
            except Exception as error:
                raise raw.failure or error from error
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_together(contents: Mapping[str | Path, bytes]) -> None:
    """Write files that belong together: all of them or, after an error, none, and what was there is there again.

    Each is written whole beside its destination before the first is renamed, in the order given: name last what refers
    to the others. A process that is killed between two renames leaves whole files.

    Args:
        contents: what is written under each name, all in one folder, which is made if it is missing.

    Raises:
        OSError: if one cannot be written; it names the folder or the file.
    """
    paths = [Path(path) for path in contents]
    folder = paths[0].parent
    staging = _partial(folder / "files")
    old, new = staging / "old", staging / "new"
    with naming(folder):
        try:
            old.mkdir(parents=True)
            for path, content in zip(paths, contents.values(), strict=True):
                with naming(path):
                    write_atomically(new / path.name, lambda file, content=content: file.write(content))  # type: ignore[misc]
            _exchange(paths, old, new)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _exchange(paths: list[Path], old: Path, new: Path) -> None:
    """Rename all files of a folder into their places, what was there into another folder; undo it after an error."""
    try:
        for path in paths:
            if path.exists():
                path.replace(old / path.name)
            (new / path.name).replace(path)
    except BaseException:
        for path in paths:
            if not (new / path.name).exists():  # it is in its place already
                path.unlink()
            if (old / path.name).exists():
                (old / path.name).replace(path)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A draft to write into, which takes the folder's place when the `with` block has ended well.

    Raises:
        OSError: if it cannot be written; it names the folder, which is as it was before.
    """
    draft, former = _partial(folder), _partial(folder)
    with naming(folder):
        try:
            draft.mkdir(parents=True)
            yield draft
            if folder.exists():
                folder.rename(former)
            draft.rename(folder)
        finally:
            for rest in (draft, former):
                shutil.rmtree(rest, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder; nobody may be writing into it.

    Args:
        folder: its subfolders are not looked at.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let an error of the system inside the block name a file, whatever library has met it.

    Raises:
        OSError: in place of an error that names none or a temporary one, or that only quotes the system's, as Rust's
            libraries do.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and PARTIAL not in str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        quoted = re.search(r"\(os error (\d+)\)", str(error))
        if quoted is None:
            raise
        raise OSError(int(quoted[1]), os.strerror(int(quoted[1])), str(path)) from error


def reason(error: OSError, path: str | Path) -> str:
    """An error of the system as `PATH: what is wrong`.

    Args:
        error: it.
        path: for one that names no file.
    """
    return f"{error.filename or path}: {error.strerror or error}"


class _Destination(io.FileIO):
    """A file that remembers why it could not be written: torch and Pillow say that in words of their own."""

    failure: OSError | None = None

    def write(self, content: object) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = error
            raise

    def fileno(self) -> int:
        """None: what writes past `write` would fail unseen."""
        raise io.UnsupportedOperation("fileno")

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        os.fsync(super().fileno())


def _partial(path: Path) -> Path:
    """A name beside a path's that no other process has, on whatever machine it runs."""
    return path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")


def within(path: str | Path, folder: str | Path) -> bool:
    """Whether a path lies in a folder or below it, once all links have been followed."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


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
