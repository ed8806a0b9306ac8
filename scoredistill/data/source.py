"""What a set of pictures has to answer."""

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
"""Samples by which a fingerprint knows how files are decoded."""
PIECE = 256
"""Samples that are hashed at once."""


class ImageSource(ABC):
    """A finite set of samples with their classes: pictures (C, H, W) in [-1, 1], latents or points.

    A subclass says how many there are and reads one of them; where many can be read at once it overrides `take` too.
    Samples have torch's default floating point type.

    Args:
        shape: of one sample, (C, H, W) for pictures, >= 1.
        classes: number of classes, labels being 0 to classes - 1, >= 1; None: samples have no label.
    """

    endless = False
    """Whether samples can only be drawn, not counted."""

    flippable = True
    """Whether a sample mirrored left to right is one too, as it is for pictures and not for latents."""

    threads = 1
    """Threads that read samples of one batch side by side."""

    def __init__(self, shape: Sequence[int] | None = None, classes: int | None = None) -> None:
        require(">= 1", shape=shape, classes=classes)
        self._shape, self._classes = None if shape is None else torch.Size(shape), classes

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Item:
        """One sample and its class, None where there are no classes; the same whenever it is asked for.

        Raises:
            IndexError: for an index outside 0 to len - 1.
        """

    @property
    def shape(self) -> torch.Size:
        """Of one sample; that of the first one where the subclass does not state it."""
        if self._shape is None:
            self._shape = self[0][0].shape
        return self._shape

    @property
    def classes(self) -> int | None:
        """Number of classes; None: samples have no label."""
        return self._classes

    @property
    def captions(self) -> Sequence[str] | None:
        """The text of each sample, in the order of their numbers; None: there are none.

        Raises:
            ValueError: that names the sample, if some have a text and others have none.
        """
        return None

    def prepare(self) -> None:  # noqa: B027  most sources have nothing to do
        """Do once what takes long and leaves files behind; in a run of several processes one of them calls it."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Several samples at once.

        Args:
            indices: (n,) integers in 0 to len - 1, in any order, repeated or not.

        Returns:
            samples (n, *D) and classes (n,), or None where there are none.
        """
        wanted = indices.tolist()
        if not wanted:
            return torch.empty(0, *self.shape), None if self.classes is None else torch.empty(0, dtype=torch.long)
        if self.threads > 1 and len(wanted) > 1:
            with ThreadPoolExecutor(min(self.threads, len(wanted))) as pool:
                items = list(pool.map(self.__getitem__, wanted))  # in the order asked for
        else:
            items = [self[index] for index in wanted]
        samples = torch.stack([sample for sample, _ in items])
        return samples, None if self.classes is None else torch.tensor([label for _, label in items])

    def all(self) -> tuple[Tensor, Tensor | None]:
        """Every sample (N, *D) in memory, and its class (N,)."""
        return self.take(torch.arange(len(self)))

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Independent samples, each equally likely.

        Args:
            n: how many.
            rng: CPU generator, from which alone the choice depends.

        Returns:
            samples (n, *D) and classes (n,), or None where there are none.
        """
        return self.take(self.choose(n, rng))

    def choose(self, n: int, rng: torch.Generator) -> Tensor:
        """The numbers (n,) of the samples that `draw` gives, for sources with an end; arguments are those of `draw`."""
        return torch.randint(len(self), (n,), generator=rng)

    def contents(self) -> Iterator[bytes]:
        """All that the samples depend on, piece by piece, in an order that is always the same.

        Here these are the samples themselves. A subclass that reads files gives their bytes, which need no decoding;
        one whose samples follow from its settings gives the settings.
        """
        for indices in torch.arange(len(self)).split(PIECE):
            yield self._bytes_of(indices)

    def fingerprint(self) -> str:
        """A hash of every sample: of the `contents` and, for what has become of them, some of the samples."""
        digest = hashlib.sha256(repr((type(self).__qualname__, len(self), self.classes)).encode())
        digest.update(self._bytes_of(torch.linspace(0, len(self) - 1, min(PROBES, len(self))).round().long()))
        for piece in self.contents():
            digest.update(hashlib.blake2b(piece).digest())
        return digest.hexdigest()

    def _bytes_of(self, indices: Tensor) -> bytes:
        """Samples and classes, rounded, so that float32 and float64 agree."""
        samples, labels = self.take(indices)
        about = repr((tuple(samples.shape), None if labels is None else labels.tolist())).encode()
        return about + (samples.double() * 1000).round().to(torch.int32).numpy().tobytes()

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__} has samples 0 to {len(self) - 1}, not {index}")
        return index


def floats(pixels: Tensor) -> Tensor:
    """uint8 pixels 0 to 255 as numbers in [-1, 1] of the default type, any shape."""
    return pixels.to(torch.get_default_dtype()) / 127.5 - 1


def class_count(labels: Sequence[int], name: Callable[[int], str], known: int | None = None, remedy: str = "") -> int:
    """The number of classes that labels 0, 1, ... name.

    Args:
        labels: of all samples.
        name: what to call the sample of a row in an error.
        known: the number, where the data set states it; None: one more than the largest label.
        remedy: what else can be done about samples without a label.

    Raises:
        ValueError: that names the first sample whose label is no number of a class: -1 or None for example, by which
            data sets mark samples without a label.
    """
    for row, label in enumerate(labels):
        if type(label) is not int or label < 0 or (known is not None and label >= known):
            numbers = "0, 1, 2, ..." if known is None else f"0 to {known - 1}"
            raise ValueError(
                f"{name(row)}: its label is {label!r}, and classes are {numbers}; leave out samples without a "
                f"label{remedy}"
            )
    return max(labels) + 1 if known is None else known
