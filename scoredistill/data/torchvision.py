"""Pictures of torchvision's data sets."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from scoredistill.data.picture_files import square
from scoredistill.data.source import ImageSource, Item, class_count, floats
from scoredistill.ranges import require


class TorchvisionImages(ImageSource):
    """Pictures of a local classification data set of torchvision; nothing is downloaded.

    Args:
        dataset: torchvision's name: MNIST, FashionMNIST, CIFAR10, SVHN, ...
        root: torchvision's root folder, which contains the data set's folder.
        split: `train`, `test`, or another split of the data set.
        resolution: side of the central square in pixels, >= 1; None: pictures are neither cropped nor resampled.
        gray: one channel instead of three; None: the same as the first picture.

    Raises:
        FileNotFoundError: if the files do not exist.
        ValueError: if torchvision has no such data set, the data set has no such split, or its labels are not classes.
    """

    threads = 4

    def __init__(
        self,
        dataset: str,
        root: str | Path,
        split: str = "train",
        resolution: int | None = None,
        gray: bool | None = None,
    ) -> None:
        require(">= 1", resolution=resolution)
        self.resolution = resolution
        self._pictures = _open(dataset, root, split)
        image, label = self._pictures[0]
        self.gray = image.mode in ("1", "L") if gray is None else gray
        if not isinstance(label, int):
            raise ValueError(f"{dataset}: expected class numbers as targets, got {type(label).__name__}")
        super().__init__(square(image, resolution, self.gray).shape, _classes(self._pictures))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Item:
        image, label = self._pictures[self._checked(index)]
        return floats(square(image, self.resolution, self.gray)), int(label)


def _open(dataset: str, root: str | Path, split: str) -> Any:
    from torchvision import datasets  # type: ignore[import-untyped]

    kind = getattr(datasets, dataset, None) if dataset in datasets.__all__ else None
    parameters = {} if kind is None else inspect.signature(kind).parameters
    if kind is None or not {"train", "split"} & set(parameters):
        raise ValueError(f"torchvision has no data set {dataset!r} with training and test parts")
    if "train" in parameters and split not in ("train", "test"):
        raise ValueError(f"{dataset} has the splits 'train' and 'test', not {split!r}")
    choice: dict[str, Any] = {"train": split == "train"} if "train" in parameters else {"split": split}
    if "download" in parameters:
        choice["download"] = False
    try:
        return kind(str(root), **choice)
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"{root}: the files of {dataset} are missing or incomplete. Download them once: "
            f"torchvision.datasets.{dataset}({str(root)!r}, download=True)"
        ) from error


def _classes(pictures: Any) -> int:
    names = getattr(pictures, "classes", None)
    labels = next(
        (getattr(pictures, name) for name in ("targets", "labels", "_labels") if hasattr(pictures, name)), None
    )
    values = [int(pictures[i][1]) for i in range(len(pictures))] if labels is None else torch.as_tensor(labels).tolist()
    return class_count(values, lambda row: f"{type(pictures).__name__}: picture {row}", names and len(names))
