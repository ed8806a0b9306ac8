"""Metrics of samples: distances to data, coverage, classes, memorization, modes, with standard errors."""

from scoredistill.evaluation.classes import class_accuracy, class_metrics, class_shares, even_labels
from scoredistill.evaluation.color import chroma, mean_chroma, mean_pair_distance
from scoredistill.evaluation.features import ClassifierFeatures, FeatureExtractor, PCAFeatures, embed
from scoredistill.evaluation.frechet import GaussianFit, frechet_distance, kernel_distance, kernel_self_similarity
from scoredistill.evaluation.inception import InceptionFeatures
from scoredistill.evaluation.modes import (
    mode_divergences,
    mode_histogram,
    mode_statistics,
    responsibilities,
    wasserstein2,
)
from scoredistill.evaluation.neighbors import Manifold, Neighborhood, manifold_metrics, memorization_metrics
from scoredistill.evaluation.prompt_classifier import PromptClassifier
from scoredistill.evaluation.resampling import standard_errors, with_errors
from scoredistill.evaluation.sample_report import SampleReport, evaluate_samples

__all__ = [
    "ClassifierFeatures",
    "FeatureExtractor",
    "GaussianFit",
    "InceptionFeatures",
    "Manifold",
    "Neighborhood",
    "PCAFeatures",
    "PromptClassifier",
    "SampleReport",
    "chroma",
    "class_accuracy",
    "class_metrics",
    "class_shares",
    "embed",
    "evaluate_samples",
    "even_labels",
    "frechet_distance",
    "kernel_distance",
    "kernel_self_similarity",
    "manifold_metrics",
    "mean_chroma",
    "mean_pair_distance",
    "memorization_metrics",
    "mode_divergences",
    "mode_histogram",
    "mode_statistics",
    "responsibilities",
    "standard_errors",
    "wasserstein2",
    "with_errors",
]
