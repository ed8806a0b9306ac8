"""Memorization: how close samples are to the training data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.evaluation.rows import as_rows, distances_to_others, same_width, smallest_distances


@dataclass(frozen=True)
class Neighborhood:
    """Training data with the distance of each point to its nearest neighbor.

    Args:
        points: (M, D) the data.
        spacing: (M,) distance to the nearest other point.
    """

    points: Tensor
    spacing: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Neighborhood:
        """Create it from data (M, *D), M >= 2.

        Raises:
            ValueError: if M < 2 or a number is not finite.
        """
        points = as_rows(data, "data")
        return cls(points, distances_to_others(points, 1)[:, 0])

    def metrics(self, samples: Tensor, ratio: float = 1 / 3) -> dict[str, Tensor]:
        """The values per sample, each (N,), whose means are `memorization_metrics`."""
        x = as_rows(samples, "samples", least=1)
        same_width(x, self.points)
        distance, index = smallest_distances(x, self.points, 2)
        nearest, second = distance.unbind(1)
        # A copy of a point that occurs twice in the data is also a copy, although its ratio is 0 / 0.
        copied = (nearest < ratio * second) | (nearest == 0)
        return {
            "memorized": copied.double(),
            "unauthentic": (nearest < self.spacing[index[:, 0]]).double(),
            "nearest_distance": nearest,
        }


def memorization_metrics(samples: Tensor, data: Tensor | Neighborhood, ratio: float = 1 / 3) -> dict[str, float]:
    """How close samples are to their nearest training points.

        memorized              share of samples with |x - y_1| < ratio |x - y_2|, y_1 and y_2 the two nearest points;
                               about ratio^d by chance for new samples in d dimensions
        unauthentic            share of samples closer to y_1 than y_1 to its nearest neighbor: 1 - authenticity; for
                               new samples from the data's distribution about a half or less, not 0
        nearest_distance       mean of |x - y_1|
        nearest_distance_data  the same for each training point and the others, the expected value for new samples

    On Memorization in Diffusion Models, 2023, arXiv:2310.02664 (memorized).
    How Faithful is your Synthetic Data?, 2021, arXiv:2102.08921 (authenticity).

    Args:
        samples: (N, *D), N >= 1.
        data: (M, *D) training points, M >= 2, or their `Neighborhood`.
        ratio: in (0, 1].

    Raises:
        ValueError: if a set is too small, shapes disagree or a number is not finite.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
    near = data if isinstance(data, Neighborhood) else Neighborhood.of(data)
    metrics = {name: float(values.mean()) for name, values in near.metrics(samples, ratio).items()}
    return metrics | {"nearest_distance_data": float(torch.mean(near.spacing))}
