"""Class accuracy and histogram."""

import pytest
import torch

from scoredistill.evaluation import class_accuracy, class_metrics, class_shares, even_labels

CLASSES = torch.tensor([0, 1, 7])


def test_shares() -> None:
    assert class_shares(torch.tensor([7, 7, 0, 1]), CLASSES).tolist() == [0.25, 0.25, 0.5]
    assert class_shares(torch.tensor([7, 7]), CLASSES).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="N >= 1"):
        class_shares(torch.tensor([], dtype=torch.long), CLASSES)


def test_accuracy() -> None:
    assert class_accuracy(torch.tensor([0, 1, 7, 7]), torch.tensor([0, 1, 1, 7])) == 0.75
    with pytest.raises(ValueError, match="must have the same shape"):
        class_accuracy(torch.tensor([0, 1]), torch.tensor([0]))


def test_histogram_is_compared_with_requested_labels_or_the_data() -> None:
    predicted, asked, data = (torch.tensor(x) for x in ([0, 0, 0, 1], [0, 0, 1, 1], [7, 7, 7, 7, 0]))
    metrics = class_metrics(predicted, asked, data, CLASSES)
    shares = {"class_share/0": 0.75, "class_share/1": 0.25, "class_share/7": 0.0}
    assert metrics == shares | {"class_accuracy": 0.75, "class_histogram_error": 0.25}
    assert class_metrics(predicted, None, data, CLASSES) == shares | {"class_histogram_error": pytest.approx(0.8)}
    assert class_metrics(predicted, None, None, CLASSES) == shares


def test_even_labels() -> None:
    assert even_labels(5, CLASSES).tolist() == [0, 1, 7, 0, 1]
