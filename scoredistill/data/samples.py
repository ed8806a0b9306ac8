"""Samples of an exact teacher as data."""

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
        self.teacher, self.endless = teacher, count is None
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
