"""Reading safetensors files, and diagnosing damaged files of weights."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

POINTER = b"version https://git-lfs"
"""Start of the text file that git-LFS leaves in place of a file that was not fetched."""
LONGEST_HEADER = 100_000_000
"""Maximum length of a header in bytes in the safetensors library."""


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it cannot be read. The message has the cause and the remedy.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {flaw(path) or error}") from error


def flaw(path: Path) -> str | None:
    """The defect of a file of weights and its remedy; None if no defect is visible without loading the file.

    Args:
        path: an existing file of weights in any format.
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
            return f"is not a safetensors file, its {size} bytes do not start with a header; copy or download it again"
        file.seek(8)
        header = file.read(length)
    try:
        tensors = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        end = None
    if len(header) < length or (end is not None and size < 8 + length + end):
        total = f" of {8 + length + end:,}" if end is not None else ""
        return f"is truncated, it has {size:,}{total} bytes; copy or download it again"
    return None if end is not None else "is not a safetensors file, its header is invalid; copy or download it again"


def first_flaw(folder: Path) -> str | None:
    """The first defective file of weights in a folder and its defect; None if there is none."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    return next((f"{path}: {defect}" for path in files if (defect := flaw(path)) is not None), None)
