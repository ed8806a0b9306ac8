"""Whether samples are copies of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.evaluation.rows import as_rows, distances_to_others, same_width, smallest_distances


@dataclass(frozen=True)
class Neighborhood:
    """Training data, and how far each of them is from its nearest fellow.

    Args:
        points: (M, D).
        spacing: (M,) distance to the nearest other point.
    """

    points: Tensor
    spacing: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Neighborhood:
        """From data (M, *D), M >= 2.

        Raises:
            ValueError: if M < 2 or a number is not finite.
        """
        points = as_rows(data, "data")
        return cls(points, distances_to_others(points, 1)[:, 0])

    def look(self, samples: Tensor, ratio: float = 1 / 3) -> dict[str, Tensor]:
        """Per sample: the values whose means are `memorization_metrics`, each (N,)."""
        x = as_rows(samples, "samples", least=1)
        same_width(x, self.points)
        distance, index = smallest_distances(x, self.points, 2)
        nearest, second = distance.unbind(1)
        # A copy of a point that the data hold twice is a copy as well, though its ratio is 0 / 0.
        copied = (nearest < ratio * second) | (nearest == 0)
        return {
            "memorized": copied.double(),
            "unauthentic": (nearest < self.spacing[index[:, 0]]).double(),
            "nearest_distance": nearest,
        }


def memorization_metrics(samples: Tensor, data: Tensor | Neighborhood, ratio: float = 1 / 3) -> dict[str, float]:
    """How close samples are to their nearest training points.

        memorized              share of samples with |x - y_1| < ratio |x - y_2|, y_1 and y_2 the two nearest points;
                               new samples in d dimensions come to about ratio^d by chance
        unauthentic            share nearer to y_1 than y_1 is to its nearest fellow: 1 - authenticity; for new
                               samples from the data's distribution about a half or less, not 0
        nearest_distance       mean of |x - y_1|
        nearest_distance_data  the same of each training point to the others, what new samples should come to

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
        raise ValueError(f"ratio must lie in (0, 1]; got {ratio}")
    near = data if isinstance(data, Neighborhood) else Neighborhood.of(data)
    metrics = {name: float(values.mean()) for name, values in near.look(samples, ratio).items()}
    return metrics | {"nearest_distance_data": float(torch.mean(near.spacing))}
