"""The callbacks that evaluate generators from noise."""

import copy

import pytest
import torch
from torch import Tensor, nn

from scoredistill.evaluation import ClassifierFeatures, PCAFeatures
from scoredistill.evaluation.classes import even_labels
from scoredistill.generators import Generator, ImageParticles
from scoredistill.losses import SDS
from scoredistill.teachers import GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, Labels, PromptFile
from scoredistill.training.callbacks.quality import (
    MixtureQuality,
    SampleQuality,
    class_condition,
    draw_samples,
    evaluation_prompts,
)
from scoredistill.types import Batch, Sample

MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
CLASSES = torch.tensor([3, 4, 5])


class Ideal(Generator):
    """A generator that samples a mixture and records its batches."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture, self.dropout = mixture, nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(()))
        self.asked: list[tuple[int | None, list[int] | None, bool]] = []

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        label = None if batch.condition is None else batch.condition.label
        self.asked.append((batch.size, None if label is None else label.tolist(), self.training))
        x, _ = self.mixture.sample(batch.size or 0, batch.condition, rng)
        return Sample(self.dropout(self.scale * x))


class Data(ConditionDataModule):
    """Conditions with real data."""

    def __init__(self, teacher: GaussianMixture, labels: list[int] | None = None, known: bool = True) -> None:
        super().__init__(labels=labels, batch_size=8)
        x, component = teacher.sample(300, rng=torch.Generator().manual_seed(9))
        self.pair = x, (CLASSES[component] if known else None)

    def reference(self) -> tuple[Tensor, Tensor | None]:
        return self.pair


def mixture(std: float = 0.1) -> GaussianMixture:
    return GaussianMixture(MEANS, std, WEIGHTS, labels=CLASSES)


def distillation() -> tuple[Distillation, Ideal]:
    generator = Ideal(mixture())
    return Distillation(generator, mixture(), SDS()).train(), generator


def test_samples_are_drawn_evenly_in_chunks_and_change_nothing() -> None:
    module, generator = distillation()
    callback = SampleQuality(50, ClassifierFeatures(steps=100), resamples=3, batch=20)
    state, weights = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    with torch.no_grad():
        metrics = callback.evaluate(module, Data(module.distiller.teacher, [3, 4]), final=True)
    assert [size for size, _, _ in generator.asked] == [20, 20, 10]
    assert [labels[:3] for _, labels, _ in generator.asked if labels] == [[3, 4, 5], [5, 3, 4], [4, 5, 3]]
    assert not any(training for _, _, training in generator.asked)
    assert module.training
    assert generator.dropout.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    assert metrics["class_accuracy"] > 0.98
    assert metrics["classifier_accuracy"] > 0.98
    assert metrics["class_histogram_error"] < 0.03
    assert metrics["memorized"] < 0.2
    assert {"frechet_se", "coverage_se", "class_share/3_se"} <= set(metrics)


def test_without_labels_in_training_none_are_used() -> None:
    module, generator = distillation()
    callback = SampleQuality(20, ClassifierFeatures(steps=5), resamples=0)
    metrics = callback.evaluate(module, Data(module.distiller.teacher), final=True)
    assert generator.asked == [(20, None, False)]
    assert "class_accuracy" not in metrics
    assert "class_histogram_error" in metrics


def test_features_are_chosen_and_fitted_once() -> None:
    module, _ = distillation()
    callback, data = SampleQuality(8, resamples=0), Data(module.distiller.teacher, known=False)
    assert callback.evaluate(module, data, final=False) == {}
    assert callback._cached is None
    first = callback.evaluate(module, data, final=True)
    assert callback._cached is not None
    report = callback._cached[1]
    assert isinstance(report.extractor, PCAFeatures)
    assert callback.evaluate(module, data, final=True) == first
    assert callback._cached[1] is report
    callback.interim = True
    assert callback.evaluate(module, data, final=False) == first


def test_metrics_of_several_sets_are_averaged() -> None:
    module, _ = distillation()
    data = Data(module.distiller.teacher, [3, 4])
    settings = {"extractor": ClassifierFeatures(steps=50), "resamples": 0, "batch": 20}
    with torch.no_grad():
        single = SampleQuality(50, **settings).evaluate(module, data, final=True)
        several = SampleQuality(50, **settings, sets=3).evaluate(module, data, final=True)
        sets = [
            draw_samples(module, 50, class_condition(even_labels(50, CLASSES.unique())), 20, 0, number)
            for number in range(3)
        ]
    known = SampleQuality(50, **settings)._report(module, data)
    each = [known(made, even_labels(50, CLASSES.unique()), 0)["frechet"] for made in sets]
    assert each[0] == single["frechet"]
    assert len(set(each)) == 3
    assert several["frechet"] == pytest.approx(sum(each) / 3)
    assert several["frechet_se"] == pytest.approx(torch.tensor(each).std().item() / 3**0.5)


def test_the_teacher_is_evaluated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = distillation()
    calls = []

    def sample(teacher, n, shape, condition=None, *, steps, guidance, rng):
        calls.append((n, tuple(shape), condition.label.tolist()[:3], steps, guidance))
        return teacher.sample(n, condition, rng)[0]

    monkeypatch.setattr("scoredistill.training.callbacks.quality.sample", sample)
    callback = SampleQuality(30, ClassifierFeatures(steps=100), resamples=0, reference_teacher=7, batch=24)
    metrics = callback.evaluate(module, Data(module.distiller.teacher, [3]), final=True)
    guidance = module.distiller.guidance
    assert calls == [(24, (2,), [3, 4, 5], 7, guidance), (6, (2,), [3, 4, 5], 7, guidance)]
    own = {name.removeprefix("teacher/") for name in metrics if name.startswith("teacher/")}
    assert own == {name for name in metrics if not name.startswith("teacher/")} - {"classifier_accuracy"}
    assert metrics["teacher/class_accuracy"] > 0.98


def test_generators_that_cannot_be_evaluated_are_refused() -> None:
    module, _ = distillation()
    with pytest.raises(TypeError, match=r"real data to compare with, such as Images; got ConditionDataModule"):
        SampleQuality().evaluate(module, ConditionDataModule(), final=True)
    particles = Distillation(ImageParticles(MEANS), mixture(), SDS())
    with pytest.raises(TypeError, match="ImageParticles holds particles"):
        MixtureQuality(8).evaluate(particles, ConditionDataModule(), final=True)
    module.distiller.teacher = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="needs a GaussianMixture teacher, got Identity"):
        MixtureQuality().evaluate(module, ConditionDataModule(), final=True)
    for callback in (SampleQuality, MixtureQuality):
        with pytest.raises(ValueError, match="samples must be at least 4"):
            callback(samples=3)


@pytest.mark.parametrize("labels", [None, [3]])
def test_ideal_samples_of_a_mixture(labels: list[int] | None) -> None:
    module, generator = distillation()
    metrics = MixtureQuality(300, resamples=8).evaluate(
        module, ConditionDataModule(labels=labels, batch_size=4), final=True
    )
    assert (generator.asked[0][1] is None) == (labels is None)
    assert metrics["modes_covered"] == 3
    assert metrics["within_3_std"] > 0.98
    assert metrics["mode_total_variation"] < 3 * (0.25 / 300) ** 0.5
    error = (metrics["wasserstein2_se"] ** 2 + metrics["wasserstein2_floor_se"] ** 2) ** 0.5
    assert abs(metrics["wasserstein2"] - metrics["wasserstein2_floor"]) < 3 * error


def test_a_generator_that_drops_a_mode() -> None:
    module, generator = distillation()
    generator.mixture = GaussianMixture(MEANS[:2], 0.1)
    metrics = MixtureQuality(1000, resamples=0).evaluate(module, ConditionDataModule(batch_size=4), final=True)
    assert metrics["modes_covered"] == 2
    # The third mode's quarter is missing, and two even modes in place of .5 and .25 add what the first has too few.
    assert 0.25 - 1e-12 <= metrics["mode_total_variation"] <= 0.25 + 3 * (0.25 / 1000) ** 0.5
    # A quarter of the mass moves by about 1.4, so the squared distance is about 1/2.
    assert metrics["wasserstein2"] > metrics["wasserstein2_floor"] + 0.3


def test_draws_depend_on_the_seed_alone() -> None:
    module, _ = distillation()
    torch.manual_seed(1)
    first = draw_samples(module, 10, batch=4)
    torch.manual_seed(2)
    assert torch.equal(first, draw_samples(module, 10, batch=4))
    assert not torch.equal(first, draw_samples(module, 10, batch=4, seed=1))
    assert len(first.unique(dim=0)) == 10


def test_text_students_are_evaluated_on_the_evaluation_prompts(tmp_path):
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    assert evaluation_prompts(PromptFile(tmp_path / "prompts.txt", 2, evaluation_size=3), 5).prompt == (
        "a",
        "b",
        "a",
        "a",
        "b",
    )
    assert evaluation_prompts(ConditionDataModule("a"), 5).prompt == "a"
    assert evaluation_prompts(ConditionDataModule(), 5) is None
    assert evaluation_prompts(Labels(3, 2), 5) is None
