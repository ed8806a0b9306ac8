"""Atomic writing of files and folders, and JSON files."""

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
"""Suffix of incomplete files; only a killed process leaves them behind, see `remove_partial`."""


def write_atomically(path: str | Path, writer: Callable[[BinaryIO], object]) -> None:
    """Write a file next to its destination, then rename it; missing folders are created.

    Args:
        path: the destination, replaced if it exists.
        writer: called with the open binary file; if it raises, nothing is left behind.

    Raises:
        OSError: with the destination's path, if it cannot be written; the destination is then unchanged.
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
                    raw.sync()  # after a power failure the file must not exist without its content
            except Exception as error:
                raise raw.failure or error from error
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_together(contents: Mapping[str | Path, bytes]) -> None:
    """Write related files of one folder: all of them or, after an error, none, and the previous ones are restored.

    All files are written next to their destinations before the first is renamed, in the given order: a file that refers
    to others must be last. A process that is killed between two renames leaves complete files.

    Args:
        contents: content by path, all in one folder, which is created if it is missing.

    Raises:
        OSError: with the path of the folder or the file, if one cannot be written.
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
    """Rename all new files to their destinations and existing ones into another folder; undo it after an error."""
    try:
        for path in paths:
            if path.exists():
                path.replace(old / path.name)
            (new / path.name).replace(path)
    except BaseException:
        for path in paths:
            if not (new / path.name).exists():  # it has been renamed
                path.unlink()
            if (old / path.name).exists():
                (old / path.name).replace(path)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces the folder when the `with` block ends without an error.

    Raises:
        OSError: with the folder's path, if it cannot be written; the folder is then unchanged.
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
    """Remove incomplete files of killed processes from a folder, to which no other process may be writing.

    Args:
        folder: the folder; its subfolders are ignored.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add a path to operating-system errors inside the block.

    Raises:
        OSError: with the path, in place of an error without a path or with a temporary one, or of another error that
            only quotes an operating-system error, as Rust libraries raise.
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
    """Format an operating-system error as `PATH: reason`.

    Args:
        error: the error.
        path: the path for an error without one.
    """
    return f"{error.filename or path}: {error.strerror or error}"


class _Destination(io.FileIO):
    """A file that stores the error of a failed write, which torch and Pillow replace by errors of their own."""

    failure: OSError | None = None

    def write(self, content: object) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = error
            raise

    def fileno(self) -> int:
        """Not supported, because a direct write to the descriptor would bypass the error handling of `write`."""
        raise io.UnsupportedOperation("fileno")

    def sync(self) -> None:
        """Wait until the content is on the disk."""
        os.fsync(super().fileno())


def _partial(path: Path) -> Path:
    """A path next to another that is unique across processes and machines."""
    return path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")


def within(path: str | Path, folder: str | Path) -> bool:
    """Whether a path is inside a folder after all links are resolved."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


Kind = TypeVar("Kind", dict[str, Any], list[Any])


def json_text(value: object, indent: int | None = 2) -> str:
    """Format a value as JSON. NaN and infinity, which JSON lacks, become null.

    Args:
        value: JSON data; paths and other objects are written as text.
        indent: spaces per level; None: everything on one line.
    """
    finite = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
    return json.dumps(finite, indent=indent, allow_nan=False)


def write_json_atomically(path: str | Path, value: object) -> None:
    """Write a value as JSON, atomically.

    Args:
        path: the destination, replaced if it exists.
        value: see `json_text`.

    Raises:
        OSError: with the path, if it cannot be written.
    """
    content = f"{json_text(value)}\n".encode()
    write_atomically(path, lambda file: file.write(content))


def read_json(path: Path, kind: type[Kind]) -> Kind | None:
    """Read a JSON file; None if it does not exist, or with a warning if it is damaged.

    Args:
        path: path of the file.
        kind: expected type, dict or list.
    """
    try:
        return load_json(path, kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn(f"{error}; it is ignored")
        return None


def load_json(path: Path, kind: type[Kind]) -> Kind:
    """Read a JSON file.

    Args:
        path: path of the file.
        kind: expected type, dict or list.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: with the path, if the file cannot be read or contains another type.
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
        expected = {dict: "an object", list: "a list"}[kind]
        raise ValueError(f"{path} is damaged: it contains {type(content).__name__}, expected {expected}")
    return content


def set_aside(path: Path) -> None:
    """Rename an unreadable file or folder, so that a new file can be written.

    Args:
        path: NAME becomes NAME.damaged, or NAME.damaged_1 and so on if that exists.
    """
    aside = path.with_name(f"{path.name}.damaged")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged_{number}")
    path.rename(aside)
    _warn(f"{path} is renamed to {aside.name}, and a new file is written")


def update_json(path: Path, kind: type[Kind]) -> Kind:
    """Read a JSON file before it is rewritten; a damaged file is renamed, see `set_aside`.

    Args:
        path: path of the file.
        kind: expected type, dict or list.

    Returns:
        The content, empty if the file does not exist or is damaged.
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
