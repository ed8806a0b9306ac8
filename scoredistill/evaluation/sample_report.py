"""All metrics of a set of samples compared with data."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.evaluation.classes import class_metrics
from scoredistill.evaluation.features import FeatureExtractor, embed
from scoredistill.evaluation.frechet import GaussianFit, kernel_distance, kernel_self_similarity
from scoredistill.evaluation.neighbors import Manifold, Neighborhood, manifold_metrics
from scoredistill.evaluation.resampling import with_errors
from scoredistill.ranges import require


class SampleReport:
    """Evaluates sample sets against data. The statistics of the data are computed once.

    Args:
        data: (M, *D) real samples in [-1, 1], M >= 3.
        data_labels: (M,) integer classes, or None.
        extractor: fitted to the data.
        neighbors: k of precision, recall, density and coverage, >= 1.

    Raises:
        ValueError: if there are too few data, or a number is not finite.
    """

    def __init__(
        self, data: Tensor, data_labels: Tensor | None, extractor: FeatureExtractor, neighbors: int = 5
    ) -> None:
        require(">= 1", neighbors=neighbors)
        features = embed(extractor, data)
        self.extractor = extractor
        self.neighbors = neighbors
        self.labels = None if data_labels is None else data_labels.detach().cpu()
        self.shape = data.shape[1:]
        self.fit = GaussianFit.of(features)
        self.manifold = Manifold.of(features, neighbors)
        self.self_similarity = kernel_self_similarity(features)
        self.neighborhood = Neighborhood.of(data)

    def __call__(
        self, samples: Tensor, labels: Tensor | None = None, resamples: int = 20, seed: int = 0
    ) -> dict[str, float]:
        """Metrics of samples; see `evaluate_samples`.

        Args:
            samples: (N, *D) in [-1, 1].
            labels: (N,) the class that each sample is conditioned on, or None.
            resamples: half-samples from which standard errors are computed; 0: no standard errors.
            seed: seed of the half-samples.
        """
        features = embed(self.extractor, samples)
        near = self.neighborhood.metrics(samples)
        predicted = self.extractor.classify(samples)
        target = None if labels is None else labels.detach().cpu()
        # The classes of the complete set: those of a subset would differ between resamples.
        present = [each for each in (self.labels, target, predicted) if each is not None]
        classes = torch.cat(present).unique() if present else None

        def statistic(index: Tensor) -> dict[str, float]:
            metrics = self._of_features(features[index])
            metrics |= {name: float(values[index].mean()) for name, values in near.items()}
            if predicted is not None and classes is not None:
                subset = None if target is None else target[index]
                metrics |= class_metrics(predicted[index], subset, self.labels, classes)
            return metrics

        rng = torch.Generator().manual_seed(seed)
        metrics = with_errors(statistic, len(features), resamples, rng)
        return metrics | {"nearest_distance_data": float(self.neighborhood.spacing.mean())}

    def _of_features(self, features: Tensor) -> dict[str, float]:
        return {
            "frechet": GaussianFit.of(features).distance(self.fit),
            "kernel": kernel_distance(features, self.manifold.points, self_b=self.self_similarity),
        } | manifold_metrics(features, self.manifold, self.neighbors)


def evaluate_samples(
    samples: Tensor,
    labels: Tensor | None,
    data: Tensor,
    data_labels: Tensor | None,
    extractor: FeatureExtractor,
    resamples: int = 20,
    neighbors: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Quality and diversity of samples compared with data, in one flat dictionary.

    In feature space: frechet, kernel, precision, recall, density, coverage. If the extractor is a classifier:
    class_accuracy (with labels), class_share/c, and class_histogram_error with respect to the labels, or else to the
    data's labels. In sample space: memorized, unauthentic, nearest_distance, and nearest_distance_data for comparison.
    Each metric except the last has a standard error `name_se`, that of drawing equally many new samples from the same
    generator for fixed data (see `standard_errors`). With fewer samples than features all values are finite, but
    frechet is dominated by bias.

    Args:
        samples: (N, *D) in [-1, 1]; N >= 2, and >= 4 with standard errors.
        labels: (N,) the class that each sample is conditioned on, or None.
        data: (M, *D) real samples, M >= 3.
        data_labels: (M,) integer classes, or None.
        extractor: fitted to the data.
        resamples: half-samples from which standard errors are computed, >= 2; 0: no standard errors.
        neighbors: k of precision, recall, density and coverage, >= 1.
        seed: seed of the half-samples.

    Raises:
        ValueError: if there are too few samples or data, shapes disagree or a number is not finite.
    """
    return SampleReport(data, data_labels, extractor, neighbors)(samples, labels, resamples, seed)
