"""Files that a reader never sees half of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO
from uuid import uuid4


def write_atomically(path: str | Path, writer: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its destination, then rename it; missing folders are made.

    Args:
        path: the destination, replaced if it exists.
        writer: is given the open binary file; if it raises, nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())  # after a power cut the name must not be there without the content
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
    """
    paths = [Path(path) for path in contents]
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as staging:
        old, new = Path(staging, "old"), Path(staging, "new")
        old.mkdir()
        for path, content in zip(paths, contents.values(), strict=True):
            write_atomically(new / path.name, lambda file, content=content: file.write(content))  # type: ignore[misc]
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


def within(path: str | Path, folder: str | Path) -> bool:
    """Whether a path lies in a folder or below it, once all links have been followed."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())
