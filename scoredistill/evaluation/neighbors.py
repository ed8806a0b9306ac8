"""Metrics from nearest neighbors: precision, recall, density and coverage, and memorization of the training data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.evaluation.rows import CHUNK_ELEMENTS, as_rows, distances_to_others, same_width, smallest_distances
from scoredistill.ranges import require


@dataclass(frozen=True)
class Manifold:
    """A set of points, each with a ball up to its k-th nearest neighbor in the set.

    Args:
        points: (N, F) the points.
        radii: (N,) radii of their balls.
        neighbors: k, >= 1.
    """

    points: Tensor
    radii: Tensor
    neighbors: int

    def __post_init__(self) -> None:
        require(">= 1", neighbors=self.neighbors)

    @classmethod
    def of(cls, features: Tensor, neighbors: int = 5) -> Manifold:
        """Create it from features (N, F), N >= 2; if N <= `neighbors`, k is N - 1.

        Raises:
            ValueError: if N < 2, `neighbors` < 1 or a feature is not finite.
        """
        if neighbors < 1:
            raise ValueError(f"neighbors must be at least 1, got {neighbors}")
        points = as_rows(features, "features")
        k = min(neighbors, len(points) - 1)
        return cls(points, distances_to_others(points, k)[:, -1], k)

    def count(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The number of balls that contain each x, (M,), and whether each ball contains some x, (N,).

        Args:
            x: (M, F).
        """
        same_width(self.points, x)
        balls = []
        reached = torch.zeros(len(self.points), dtype=torch.bool)
        # Copies must be inside a ball of radius 0 in spite of rounding.
        reach = self.radii + 1e-7 * self.points.norm(dim=1)
        for piece in x.split(max(1, CHUNK_ELEMENTS // len(self.points))):
            inside = torch.cdist(piece, self.points) <= reach
            balls.append(inside.sum(1))
            reached |= inside.any(0)
        return torch.cat(balls), reached


def manifold_metrics(samples: Tensor, data: Tensor | Manifold, neighbors: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of samples against data.

    B(z) is the ball around a point z of a set up to its k-th nearest neighbor in that set:

        precision  share of samples in some B(data point)
        recall     share of data points in some B(sample)
        density    mean number of B(data point) that contain a sample, over k; about 1 for perfect samples
        coverage   share of B(data point) that contain some sample

    Unlike precision and recall, density and coverage do not reward outliers among the data or the samples. All depend
    on the numbers of samples and data, so only values from equal numbers are comparable.

    "Improved Precision and Recall Metric for Assessing Generative Models" (2019), arXiv:1904.06991.
    "Reliable Fidelity and Diversity Metrics for Generative Models" (2020), arXiv:2002.09797.

    Args:
        samples: (N, F) features, N >= 2.
        data: (M, F) features, M >= 2, or their `Manifold`.
        neighbors: k, >= 1; fewer if a set is smaller.

    Raises:
        ValueError: if a set has fewer than two rows, the rows differ in length or a number is not finite.
    """
    real = data if isinstance(data, Manifold) else Manifold.of(data, neighbors)
    fake = Manifold.of(samples, neighbors)
    balls, reached = real.count(fake.points)
    recalled, _ = fake.count(real.points)
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float((recalled > 0).double().mean()),
        "density": float(balls.double().mean() / real.neighbors),
        "coverage": float(reached.double().mean()),
    }


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

    "On Memorization in Diffusion Models" (2023), arXiv:2310.02664 (memorized).
    "How Faithful is your Synthetic Data?" (2021), arXiv:2102.08921 (authenticity).

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
