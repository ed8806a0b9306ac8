"""Files that a reader never sees half of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
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
