"""Pictures in a folder, with subfolders as classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from scoredistill.data.picture_files import SUFFIXES, decode
from scoredistill.data.source import ImageSource, Item, floats
from scoredistill.files import within
from scoredistill.ranges import require

METADATA = "metadata.jsonl"
"""File with the captions of a folder's pictures, in the format of Hugging Face's `imagefolder`."""


class ImageFolder(ImageSource):
    """Picture files (PNG, JPEG, WebP, BMP): each subfolder is a class, numbered in sorted order from 0.

    The pictures of a folder without subfolders have no labels. Pictures are cropped to their central square and
    resampled with antialiasing; transparent pixels become white. Hidden files and folders are ignored.

    Captions are read from metadata.jsonl in the folder, with a line {"file_name": "class/1.png", "text": "a red mug"}
    per picture, or else from text files next to the pictures: 1.txt for 1.png. They are read on first access.

    Args:
        folder: path of the folder.
        resolution: side of the square in pixels, >= 1.
        gray: one channel instead of three.

    Raises:
        FileNotFoundError: if the folder does not exist, or it or one of its subfolders has no picture.
        ValueError: if pictures are next to class folders, or a link points out of the folder; on access, if a picture
            cannot be read.
    """

    threads = 4

    def __init__(self, folder: str | Path, resolution: int, gray: bool = False) -> None:
        require(">= 1", resolution=resolution)
        self.folder = Path(folder)
        self.resolution = resolution
        self.gray = gray
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: this folder of pictures does not exist")
        visible = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        subfolders = [path for path in visible if path.is_dir()]
        loose = [path for path in visible if _is_picture(path)]
        if subfolders and loose:
            raise ValueError(f"{self.folder}: {loose[0].name} is next to class folders; move it into one of them")
        self.names = [path.name for path in subfolders]
        """Names of the classes, in the order of their labels."""
        self.files: list[tuple[Path, int | None]] = [(path, None) for path in loose]
        for label, subfolder in enumerate(subfolders):
            self.files += [(path, label) for path in _pictures(subfolder)]
        for path in (*subfolders, *(path for path, _ in self.files)):
            _require_inside(path, self.folder)
        if not self.files:
            raise FileNotFoundError(f"{self.folder}: contains no pictures ({', '.join(SUFFIXES)})")
        super().__init__((1 if gray else 3, resolution, resolution), len(subfolders) or None)

    @cached_property
    def captions(self) -> tuple[str, ...] | None:
        paths = [path for path, _ in self.files]
        if (self.folder / METADATA).is_file():
            _require_inside(self.folder / METADATA, self.folder)
            return _listed(self.folder, paths)
        texts = [path.with_suffix(".txt") for path in paths]
        missing = [path for path in texts if not path.is_file()]
        if len(missing) == len(texts):
            return None
        if missing:
            raise ValueError(f"{missing[0]}: is missing, while other pictures have a caption file")
        for path in texts:
            _require_inside(path, self.folder)
        return tuple(_text(path).strip() for path in texts)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        path, label = self.files[self._checked(index)]
        return floats(decode(path, self.resolution, self.gray, str(path))), label

    def contents(self) -> Iterator[bytes]:
        for path, label in self.files:
            yield f"{path.relative_to(self.folder).as_posix()} {label}\n".encode() + path.read_bytes()


def _require_inside(path: Path, folder: Path) -> None:
    """Refuse a link to a path outside the folder.

    Raises:
        ValueError: if the path is one.
    """
    if not within(path, folder):
        raise ValueError(f"{path}: is a link that points out of {folder} and is not followed; replace it by a copy")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    """All pictures in the folder of a class and its subfolders.

    Raises:
        FileNotFoundError: if there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path))
    if not paths:
        raise FileNotFoundError(f"{folder}: contains no pictures ({', '.join(SUFFIXES)}), and would be an empty class")
    return paths


def _listed(folder: Path, pictures: list[Path]) -> tuple[str, ...]:
    """Captions of the pictures from the folder's metadata.

    Raises:
        ValueError: with the line or the picture, if a line is not a caption or a picture has none.
    """
    file = folder / METADATA
    texts = {}
    for number, line in enumerate(_text(file).split("\n"), 1):  # splitlines would also split at U+2028 within a text
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name = str(entry["file_name"])
            text = entry["text"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}: line {number} is not {{file_name: ..., text: ...}} ({error!r})") from error
        if not isinstance(text, str):
            raise ValueError(f"{file}: line {number}: expected text for {name}, got {text!r}")
        texts[_composed(name)] = text
    names = [_composed(path.relative_to(folder).as_posix()) for path in pictures]
    bare = [name for name in names if name not in texts]
    if bare:
        raise ValueError(f"{file}: has no caption of {bare[0]} and {len(bare) - 1} other pictures")
    return tuple(texts[name] for name in names)


def _composed(name: str) -> str:
    """Normalize a file name: macOS decomposes letters with accents, and other systems do not."""
    return normalize("NFC", name)


def _text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error
