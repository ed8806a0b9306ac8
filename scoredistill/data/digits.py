"""Handwritten digits included in scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.data.source import ImageSource, Item


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
