"""All metrics together."""

import math

import pytest
import torch

from scoredistill.evaluation import ClassifierFeatures, PCAFeatures, SampleReport, evaluate_samples, frechet_distance


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(count: int, seed: int, std: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 2
    x = (labels.double() * 2 - 1)[:, None] + std * torch.randn(count, 3, generator=rng(seed))
    return x, labels


FEATURES = {"frechet", "kernel", "precision", "recall", "density", "coverage"}
COPIES = {"memorized", "unauthentic", "nearest_distance"}
CLASSES = {"class_accuracy", "class_share/0", "class_share/1", "class_histogram_error"}


def test_without_labels() -> None:
    data, samples = clusters(200, 0)[0], clusters(100, 1)[0]
    extractor = PCAFeatures().fit(data)
    metrics = evaluate_samples(samples, None, data, None, extractor, resamples=3)
    names = FEATURES | COPIES
    assert set(metrics) == names | {f"{name}_se" for name in names} | {"nearest_distance_data"}
    assert metrics["frechet"] == pytest.approx(frechet_distance(samples, data))
    assert set(evaluate_samples(samples, None, data, None, extractor, resamples=0)) == names | {"nearest_distance_data"}


def test_with_classes() -> None:
    data, labels = clusters(200, 0)
    samples, asked = clusters(100, 1)
    report = SampleReport(data, labels, ClassifierFeatures(steps=60, features=8).fit(data, labels))
    good = report(samples, asked, resamples=3)
    names = FEATURES | COPIES | CLASSES
    assert set(good) == names | {f"{name}_se" for name in names} | {"nearest_distance_data"}
    assert good["class_accuracy"] == 1
    assert good["class_histogram_error"] == 0
    # Half of the samples are wrong: they have one class only.
    collapsed = report(samples[::2].repeat(2, 1), asked, resamples=3)
    assert collapsed["class_accuracy"] == 0.5
    assert collapsed["class_histogram_error"] == 0.5
    assert collapsed["recall"] < 0.6 < good["recall"]
    assert collapsed["frechet"] > 10 * good["frechet"]
    assert report(samples)["class_histogram_error"] == 0  # against the data's histogram


def test_results_depend_on_the_seed_only() -> None:
    data, samples = clusters(50, 0)[0], clusters(40, 1)[0]
    report = SampleReport(data, None, PCAFeatures().fit(data))
    state = torch.get_rng_state()
    first = report(samples, resamples=3)
    torch.randn(5)
    assert report(samples, resamples=3) == first
    other = report(samples, resamples=3, seed=1)
    assert other["frechet"] == first["frechet"]
    assert other["frechet_se"] != first["frechet_se"]
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_fewer_samples_than_features_give_finite_metrics() -> None:
    data = torch.randn(12, 1, 5, 5, generator=rng())
    metrics = evaluate_samples(data[:4] + 0.1, None, data, None, PCAFeatures(30).fit(data), resamples=3)
    assert all(math.isfinite(value) for value in metrics.values())


def test_one_sample_is_too_few() -> None:
    data = clusters(50, 0)[0]
    report = SampleReport(data, None, PCAFeatures().fit(data))
    with pytest.raises(ValueError, match="at least 2 rows"):
        report(data[:1], resamples=0)
    with pytest.raises(ValueError, match="4 samples and 2 resamples, got 3 and 20"):
        report(data[:3])
    with pytest.raises(ValueError, match="1 of 4 rows are not finite"):
        report(torch.cat([data[:3], torch.full((1, 3), torch.nan)]))
