"""Whether samples show the classes that they were asked for."""

from __future__ import annotations

import torch
from torch import Tensor


def class_shares(labels: Tensor, classes: Tensor) -> Tensor:
    """The class histogram: share of each class, (K,).

    Args:
        labels: (N,) integers, N >= 1.
        classes: (K,) the classes to count; labels of others count for none.
    """
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels must be (N,) with N >= 1; got shape {tuple(labels.shape)}")
    return (labels[:, None] == classes).double().mean(0)


def class_accuracy(predicted: Tensor, asked: Tensor) -> float:
    """Share of samples that a classifier takes for the class that was asked for.

    It is bounded by the classifier's own accuracy, and a generator of one perfect sample a class reaches it.

    Args:
        predicted: (N,).
        asked: (N,).

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != asked.shape:
        raise ValueError(f"{tuple(predicted.shape)} predictions for {tuple(asked.shape)} labels")
    return float((predicted == asked).double().mean())


def class_metrics(
    predicted: Tensor, asked: Tensor | None, expected: Tensor | None, classes: Tensor
) -> dict[str, float]:
    """Accuracy and histogram of predicted classes.

    class_share/c is the share of class c; class_histogram_error the largest |share predicted - share expected|.

    Args:
        predicted: (N,).
        asked: (N,), or None where no class was asked for: then there is no accuracy.
        expected: labels of any number, whose histogram is the goal where none was asked; None: no error.
        classes: (K,).
    """
    shares = class_shares(predicted, classes)
    metrics = {f"class_share/{int(c)}": float(share) for c, share in zip(classes, shares, strict=True)}
    if asked is not None:
        metrics["class_accuracy"] = class_accuracy(predicted, asked)
    goal = expected if asked is None else asked
    if goal is not None:
        metrics["class_histogram_error"] = float((shares - class_shares(goal, classes)).abs().max())
    return metrics


def even_labels(count: int, classes: Tensor) -> Tensor:
    """`count` labels, (count,), that run through the classes (K,) again and again."""
    return classes[torch.arange(count) % len(classes)]
