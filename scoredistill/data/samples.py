"""Data that is made here: samples of an exact teacher, and scikit-learn's digits."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.data.source import ImageSource, Item
from scoredistill.ranges import require
from scoredistill.teachers.analytic import GaussianMixture


class TeacherSamples(ImageSource):
    """Independent samples of an exact mixture, in a fixed set or without end.

    Args:
        teacher: the mixture; if it has labels, the class of a sample is that of its component.
        count: size of the fixed set, >= 1; None: each draw returns new samples.
        seed: seed of the fixed set, in [0, 2^32).

    Raises:
        ValueError: if count is not positive.
    """

    flippable = False

    def __init__(self, teacher: GaussianMixture, count: int | None = None, seed: int = 0) -> None:
        require(">= 1", count=count)
        require("[0, 2^32)", seed=seed)
        super().__init__(teacher.shape, None if teacher.labels is None else int(teacher.labels.max()) + 1)
        self.teacher = teacher
        self.endless = count is None
        self._fixed = None if count is None else self._new(count, torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        if self._fixed is None:
            raise TypeError("TeacherSamples without a count has no end: use draw, or set count")
        return len(self._fixed[0])

    def __getitem__(self, index: int) -> Item:
        samples, labels = self.take(torch.tensor([self._checked(index)]))
        return samples[0], None if labels is None else int(labels[0])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._fixed is None:
            raise TypeError("TeacherSamples without a count has no end: use draw, or set count")
        samples, labels = self._fixed
        return samples[indices], None if labels is None else labels[indices]

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return self._new(n, rng) if self._fixed is None else super().draw(n, rng)

    @torch.no_grad()
    def _new(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        samples, component = self.teacher.sample(n, rng=rng)
        labels = None if self.teacher.labels is None else self.teacher.labels[component].cpu()
        return samples.cpu(), labels


class DigitImages(ImageSource):
    """scikit-learn's 1,797 handwritten digits, (1, 8, 8) in [-1, 1], with their labels 0 to 9.

    Raises:
        ImportError: if scikit-learn is not installed.
    """

    flippable = False

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError("DigitImages needs scikit-learn: install scoredistill[digits]") from error
        digits = load_digits()
        self.images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
        self.labels = torch.as_tensor(digits.target, dtype=torch.long)
        super().__init__(self.images.shape[1:], 10)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        index = self._checked(index)
        return self.images[index].to(torch.get_default_dtype()), int(self.labels[index])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices].to(torch.get_default_dtype()), self.labels[indices]
