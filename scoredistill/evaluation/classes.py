"""Class metrics of conditional samples."""

from __future__ import annotations

import torch
from torch import Tensor


def class_shares(labels: Tensor, classes: Tensor) -> Tensor:
    """Class histogram: the share of each class, (K,).

    Args:
        labels: (N,) integers, N >= 1.
        classes: (K,) the classes to count; other labels count only in the total.
    """
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels must be (N,) with N >= 1; got shape {tuple(labels.shape)}")
    return (labels[:, None] == classes).double().mean(0)


def class_accuracy(predicted: Tensor, target: Tensor) -> float:
    """Share of samples whose predicted class is the class that they were conditioned on.

    It is bounded by the classifier's accuracy. A generator of a single perfect sample per class reaches this bound.

    Args:
        predicted: (N,) predicted classes.
        target: (N,) classes of the condition.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"predicted and target must have the same shape, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    return float((predicted == target).double().mean())


def class_metrics(
    predicted: Tensor, target: Tensor | None, expected: Tensor | None, classes: Tensor
) -> dict[str, float]:
    """Accuracy and histogram of predicted classes.

    class_share/c is the share of class c; class_histogram_error is the largest |predicted share - expected share|.

    Args:
        predicted: (N,) predicted classes.
        target: (N,) classes of the condition; None: unconditional samples, without an accuracy.
        expected: any number of labels, whose histogram is the expected one for unconditional samples; None: no error.
        classes: (K,) the classes to count.
    """
    shares = class_shares(predicted, classes)
    metrics = {f"class_share/{int(c)}": float(share) for c, share in zip(classes, shares, strict=True)}
    if target is not None:
        metrics["class_accuracy"] = class_accuracy(predicted, target)
    reference = expected if target is None else target
    if reference is not None:
        metrics["class_histogram_error"] = float((shares - class_shares(reference, classes)).abs().max())
    return metrics


def even_labels(count: int, classes: Tensor) -> Tensor:
    """Labels (count,) that cycle through the classes (K,)."""
    return classes[torch.arange(count) % len(classes)]
