"""Pictures in a folder, its subfolders being classes."""

from __future__ import annotations

from pathlib import Path

from scoredistill.data.base import ImageSource, Item, floats
from scoredistill.data.pictures import SUFFIXES, check_resolution, decode


class ImageFolder(ImageSource):
    """Picture files (PNG, JPEG, WebP, BMP): each subfolder is a class, numbered in sorted order from 0.

    A folder without subfolders holds pictures without labels. Pictures are cut to their central square and resampled
    with antialiasing; transparent parts become white. Hidden files and folders are left out.

    Args:
        folder: where the pictures are.
        resolution: side of the square in pixels.
        grey: one channel instead of three.

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it or in one of its subfolders.
        ValueError: if pictures lie beside subfolders with pictures; when read, for a picture that cannot be.
    """

    threads = 4

    def __init__(self, folder: str | Path, resolution: int, grey: bool = False) -> None:
        self.folder, self.resolution, self.grey = Path(folder), check_resolution(resolution), grey
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: there is no such folder of pictures")
        visible = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        subfolders = [path for path in visible if path.is_dir()]
        loose = [path for path in visible if _is_picture(path)]
        if subfolders and loose:
            raise ValueError(f"{self.folder}: {loose[0].name} lies beside class folders; move it into one of them")
        self.names = [path.name for path in subfolders]
        """The classes' names, in the order of their labels."""
        self.files: list[tuple[Path, int | None]] = [(path, None) for path in loose]
        for label, subfolder in enumerate(subfolders):
            self.files += [(path, label) for path in _pictures(subfolder)]
        if not self.files:
            raise FileNotFoundError(f"{self.folder}: holds no pictures ({', '.join(SUFFIXES)})")
        super().__init__((1 if grey else 3, resolution, resolution), len(subfolders) or None)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        path, label = self.files[self._checked(index)]
        return floats(decode(path, self.resolution, self.grey, str(path))), label

    def identity(self) -> str:
        return repr([(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path, _ in self.files])


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    """All pictures in a class's folder and the folders below it.

    Raises:
        FileNotFoundError: if there are none.
    """
    found = sorted(path for path in folder.rglob("*") if _is_picture(path))
    if not found:
        raise FileNotFoundError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)}), and would be an empty class")
    return found
