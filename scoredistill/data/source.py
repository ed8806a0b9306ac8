"""The interface of sources of real samples."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from scoredistill.ranges import require

Item = tuple[Tensor, int | None]

PROBES = 16
"""Number of decoded samples in a fingerprint, which detect a change of the decoding."""
PIECE = 256
"""Number of samples that are hashed at once."""


class ImageSource(ABC):
    """A finite set of samples with their classes: pictures (C, H, W) in [-1, 1], latents or points.

    A subclass implements `__len__` and `__getitem__`; it overrides `take` if it can read several samples at once.
    Samples have torch's default floating-point type.

    Args:
        shape: shape of one sample, (C, H, W) for pictures, >= 1.
        classes: number of classes, >= 1; labels are 0 to classes - 1. None: samples have no label.
    """

    endless = False
    """Whether samples can only be drawn and not indexed."""

    flippable = True
    """Whether mirrored samples are valid samples, which holds for pictures and not for latents."""

    threads = 1
    """Number of threads that read the samples of a batch."""

    def __init__(self, shape: Sequence[int] | None = None, classes: int | None = None) -> None:
        require(">= 1", shape=shape, classes=classes)
        self._shape = None if shape is None else torch.Size(shape)
        self._classes = classes

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Item:
        """One sample and its class, or None without classes; equal at every access.

        Raises:
            IndexError: for an index outside 0 to len - 1.
        """

    @property
    def shape(self) -> torch.Size:
        """Shape of one sample; that of the first sample if the subclass does not set it."""
        if self._shape is None:
            self._shape = self[0][0].shape
        return self._shape

    @property
    def classes(self) -> int | None:
        """Number of classes; None: samples have no label."""
        return self._classes

    @property
    def captions(self) -> Sequence[str] | None:
        """Caption of each sample, in order; None: samples have no captions.

        Raises:
            ValueError: with the name of a sample, if some have a caption and others have none.
        """
        return None

    def prepare(self) -> None:  # noqa: B027  # most sources have nothing to prepare
        """Write files that take long to create; one process per machine calls it."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read several samples.

        Args:
            indices: (n,) integers in 0 to len - 1, in any order, possibly repeated.

        Returns:
            samples (n, *D), and classes (n,) or None.
        """
        numbers = indices.tolist()
        if not numbers:
            return torch.empty(0, *self.shape), None if self.classes is None else torch.empty(0, dtype=torch.long)
        if self.threads > 1 and len(numbers) > 1:
            with ThreadPoolExecutor(min(self.threads, len(numbers))) as pool:
                items = list(pool.map(self.__getitem__, numbers))
        else:
            items = [self[index] for index in numbers]
        samples = torch.stack([sample for sample, _ in items])
        return samples, None if self.classes is None else torch.tensor([label for _, label in items])

    def all(self) -> tuple[Tensor, Tensor | None]:
        """Read all samples (N, *D) and their classes (N,) or None."""
        return self.take(torch.arange(len(self)))

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw independent samples with equal probabilities.

        Args:
            n: number of samples.
            rng: CPU generator, which alone determines the choice.

        Returns:
            samples (n, *D), and classes (n,) or None.
        """
        return self.take(self.choose(n, rng))

    def choose(self, n: int, rng: torch.Generator) -> Tensor:
        """Indices (n,) of the samples that `draw` returns for the same arguments; for sources with an end."""
        return torch.randint(len(self), (n,), generator=rng)

    def contents(self) -> Iterator[bytes]:
        """All data that determine the samples, piece by piece in a fixed order.

        By default these are the samples. A subclass that reads files yields their bytes, which need no decoding; a
        subclass whose samples are determined by its settings yields the settings.
        """
        for indices in torch.arange(len(self)).split(PIECE):
            yield self._bytes_of(indices)

    def fingerprint(self) -> str:
        """A hash of the source: of its `contents` and of some decoded samples."""
        digest = hashlib.sha256(repr((type(self).__qualname__, len(self), self.classes)).encode())
        digest.update(self._bytes_of(torch.linspace(0, len(self) - 1, min(PROBES, len(self))).round().long()))
        for piece in self.contents():
            digest.update(hashlib.blake2b(piece).digest())
        return digest.hexdigest()

    def _bytes_of(self, indices: Tensor) -> bytes:
        """Samples and classes as bytes, rounded so that float32 and float64 agree."""
        samples, labels = self.take(indices)
        about = repr((tuple(samples.shape), None if labels is None else labels.tolist())).encode()
        return about + (samples.double() * 1000).round().to(torch.int32).numpy().tobytes()

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__} has samples 0 to {len(self) - 1}, got index {index}")
        return index


def floats(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels 0 to 255 of any shape to numbers in [-1, 1] of the default type."""
    return pixels.to(torch.get_default_dtype()) / 127.5 - 1


def class_count(labels: Sequence[int], name: Callable[[int], str], known: int | None = None, remedy: str = "") -> int:
    """The number of classes of labels 0, 1, ...

    Args:
        labels: labels of all samples.
        name: returns the name of a row's sample, for error messages.
        known: the number stated by the data set; None: one more than the largest label.
        remedy: another remedy for samples without a label, for error messages.

    Raises:
        ValueError: with the name of the first sample whose label is not a class, such as -1 or None, which data sets
            use for samples without a label.
    """
    for row, label in enumerate(labels):
        if type(label) is not int or label < 0 or (known is not None and label >= known):
            numbers = "0, 1, 2, ..." if known is None else f"0 to {known - 1}"
            raise ValueError(
                f"{name(row)}: its label is {label!r}, and classes are {numbers}; leave out samples without a "
                f"label{remedy}"
            )
    return max(labels) + 1 if known is None else known
