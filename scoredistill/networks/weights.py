"""Files of weights: reading safetensors, and saying what is wrong with one that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

POINTER = b"version https://git-lfs"
"""How the text begins that git-LFS leaves in place of a file that it has not fetched."""
LONGEST_HEADER = 100_000_000
"""Bytes; what the safetensors library reads at most."""


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, naming the file, the cause and the remedy.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {flaw(path) or error}") from error


def flaw(path: Path) -> str | None:
    """What is wrong with a file of weights, and what to do; None: nothing that can be seen from its outside.

    Args:
        path: a file that is there, of any format of weights.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        if start == POINTER:
            return "is a git-LFS pointer in place of the weights; fetch them: git lfs pull"
        if path.suffix != ".safetensors":
            return "is empty; copy or download it again" if size == 0 else None
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > LONGEST_HEADER:
            return f"is no safetensors file, its {size} bytes do not begin with a header; copy or download it again"
        file.seek(8)
        header = file.read(length)
    try:
        tensors = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        end = None
    if len(header) < length or (end is not None and size < 8 + length + end):
        whole = f", of {8 + length + end:,}" if end is not None else ""
        return f"is truncated, {size:,} bytes are there{whole}; copy or download it again"
    return None if end is not None else "is no safetensors file, its header cannot be read; copy or download it again"


def first_flaw(folder: Path) -> str | None:
    """The first file of weights in a folder with which something is wrong, and what; None: there is no such file."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    return next((f"{path}: {found}" for path in files if (found := flaw(path)) is not None), None)
