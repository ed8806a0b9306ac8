"""Pictures in files of Hugging Face's datasets library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scoredistill.data.picture_files import decode
from scoredistill.data.source import ImageSource, Item, class_count, floats
from scoredistill.ranges import require


class HuggingFaceImages(ImageSource):
    """Pictures of a local data set of the `datasets` library; nothing is downloaded.

    Args:
        path: a folder written by `save_to_disk`, a .parquet or .arrow file, a folder of such files, or a folder of
            pictures in the layout of `imagefolder`.
        split: the split, if the folder has several.
        image_column: name of the column of pictures.
        label_column: name of the column of classes, integers from 0 without missing values; None: no labels.
        text_column: name of the column of captions; None: no captions.
        resolution: side of the central square in pixels, >= 1.
        gray: one channel instead of three.

    Raises:
        ImportError: if `datasets` is not installed.
        FileNotFoundError: if the path does not exist.
        ValueError: if the split or a column is missing, the data set is empty, a row has no label (-1 or None), or a
            caption is not text; on access, if a picture cannot be read.
    """

    threads = 4

    def __init__(
        self,
        path: str | Path,
        split: str = "train",
        image_column: str = "image",
        label_column: str | None = "label",
        resolution: int = 64,
        gray: bool = False,
        text_column: str | None = None,
    ) -> None:
        require(">= 1", resolution=resolution)
        self.path = Path(path)
        self.resolution = resolution
        self.gray = gray
        self.split = split
        self.image_column = image_column
        table = _load(self.path, split)
        for column in (image_column, label_column, text_column):
            if column is not None and column not in table.column_names:
                raise ValueError(f"{self.path}: has no column {column!r}; its columns are {table.column_names}")
        if not len(table):
            raise ValueError(f"{self.path}: the split {split!r} is empty")
        self.labels: list[int] | None = None if label_column is None else list(table[label_column])
        classes = None
        if label_column is not None and self.labels is not None:
            known = getattr(table.features[label_column], "num_classes", None)
            classes = class_count(self.labels, self._row, known, ", or set label_column: null")
        self._captions = None if text_column is None else tuple(table[text_column])
        for row, text in enumerate(self._captions or ()):
            if not isinstance(text, str):
                raise ValueError(f"{self.path}: row {row} of {split}: expected text in {text_column}, got {text!r}")
        self._files = _undecoded(table, image_column)
        super().__init__((1 if gray else 3, resolution, resolution), classes)

    @property
    def captions(self) -> tuple[str, ...] | None:
        return self._captions

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Item:
        file = self._file(self._checked(index))
        label = None if self.labels is None else self.labels[index]
        return floats(decode(file, self.resolution, self.gray, self._row(index))), label

    def contents(self) -> Iterator[bytes]:
        for index in range(len(self)):
            file = self._file(index)
            label = None if self.labels is None else self.labels[index]
            yield f"{label}\n".encode() + (file if isinstance(file, bytes) else file.read_bytes())

    def _file(self, index: int) -> Path | bytes:
        """The path or the content of a row's picture file.

        Raises:
            ValueError: if the row has no picture.
        """
        entry = self._files[index][self.image_column]
        if not isinstance(entry, dict) or (entry["bytes"] is None and entry["path"] is None):
            raise ValueError(f"{self._row(index)}: has no picture")
        return Path(entry["path"]) if entry["bytes"] is None else bytes(entry["bytes"])

    def _row(self, index: int) -> str:
        return f"{self.path}: row {index} of {self.split}"


def _load(path: Path, split: str) -> Any:
    """Load the table of a split, in any of the supported formats."""
    try:
        import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError("HuggingFaceImages needs the datasets library: install scoredistill[data]") from error
    if not path.exists():
        raise FileNotFoundError(f"{path}: this data set does not exist; nothing is downloaded")
    if (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    if (path / "dataset_dict.json").is_file():
        parts = datasets.load_from_disk(str(path))
        if split not in parts:
            raise ValueError(f"{path}: has no split {split!r}; its splits are {sorted(parts)}")
        return parts[split]
    for kind in ("parquet", "arrow"):
        files = [path] if path.suffix == f".{kind}" else sorted(path.rglob(f"*.{kind}"))
        # File names on the Hub begin with the name of the split.
        files = [file for file in files if file.name.startswith(split)] or files
        if files:
            return datasets.load_dataset(kind, data_files={split: [str(file) for file in files]}, split=split)
    if not path.is_dir():
        raise ValueError(f"{path}: neither a folder nor a .parquet or .arrow file")
    return datasets.load_dataset("imagefolder", data_dir=str(path), split=split)


def _undecoded(table: Any, column: str) -> Any:
    """The column of pictures as {"bytes", "path"}; they are decoded later, so that an error names the row."""
    import datasets

    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
