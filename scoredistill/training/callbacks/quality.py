"""Metrics of samples: distances to data, classes, memorization, modes of an exact teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from pytorch_lightning import Callback
from torch import Tensor

from scoredistill.evaluation.classes import even_labels
from scoredistill.evaluation.features import ClassifierFeatures, FeatureExtractor, PCAFeatures
from scoredistill.evaluation.modes import mode_divergences, mode_statistics
from scoredistill.evaluation.resampling import mean_over_sets, with_errors
from scoredistill.evaluation.sample_report import SampleReport
from scoredistill.evaluation.transport import wasserstein2
from scoredistill.generators.image import ImageParticles
from scoredistill.networks.eval_mode import eval_mode
from scoredistill.ranges import require
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.sampling import sample
from scoredistill.training.callbacks.evaluation import Evaluation, require_part
from scoredistill.training.data import ConditionDataModule
from scoredistill.training.images import Images
from scoredistill.training.module import Distillation
from scoredistill.training.randomness import generator_at
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition

SAMPLES_STREAM, TEACHER_STREAM, MIXTURE_STREAM = 2_000_003, 2_000_033, 2_000_063
"""Streams of random numbers, apart from those of training."""
TRANSPORT_SAMPLES = 1000
"""Most samples that are matched exactly; the time grows with their cube."""


def draw_samples(
    module: TrainingModule,
    count: int,
    condition: Condition | None = None,
    batch: int = 256,
    seed: int = 0,
    number: int = 0,
) -> Tensor:
    """Samples (count, *D) of the evaluated generator, on the CPU, as a function of its weights and the seed alone.

    Latents are decoded.

    Args:
        module: whose evaluated generator is asked.
        count: how many.
        condition: count rows that are asked for, or None.
        batch: samples at a time.
        seed: of the noise.
        number: of the set of samples; others are independent.

    """
    generator = module.eval_generator

    def made(condition: Condition | None, size: int, rng: torch.Generator) -> Tensor:
        with torch.no_grad():
            return module.decode(generator(module.with_embeddings(Batch(condition, size).to(module.device)), rng).x)

    with eval_mode(generator):
        return in_batches(made, count, condition, batch, seed, SAMPLES_STREAM, number)


def require_samples(looker: Callback, module: TrainingModule) -> None:
    """Check that a callback's generator samples from noise.

    Raises:
        TypeError: if it holds particles.
    """
    generator = module.eval_generator
    if generator.particles is not None:
        raise TypeError(
            f"{type(looker).__name__} needs a generator that samples from noise; {type(generator).__name__} holds "
            "particles (ModeStatistics looks at particles, GalleryFidelity and PromptFidelity at scenes)"
        )


def in_batches(
    made: Callable[[Condition | None, int, torch.Generator], Tensor],
    count: int,
    condition: Condition | None,
    batch: int,
    seed: int,
    stream: int,
    number: int = 0,
) -> Tensor:
    """`count` samples, made batch by batch, each batch of each set with random numbers of its own.

    Args:
        made: samples of a condition, as many as asked, with a CPU generator.
        count: how many.
        condition: count rows that are asked for, or None.
        batch: samples at a time.
        seed: of the random numbers.
        stream: of the random numbers.
        number: of the set.
    """
    parts, pieces = [], torch.arange(count).split(batch)
    for step, rows in enumerate(pieces, number * len(pieces)):
        part = None if condition is None else condition[rows]
        parts.append(made(part, len(rows), generator_at(seed, step, stream)).detach().cpu())
    return torch.cat(parts)


def _require_spread(resamples: int) -> None:
    if resamples == 1:
        raise ValueError("resamples: a single half-sample has no spread; set 0, or 2 and more")


def classes(labels: Tensor | None) -> Condition | None:
    """What asks for classes (B,), or for nothing."""
    return None if labels is None else Condition(label=labels)


def asked_texts(data: ConditionDataModule, count: int) -> Condition | None:
    """`count` rows of the prompts of the data's evaluation batches, over and over; None where there are none."""
    parts = [batch.condition for batch in data.evaluation_batches()]
    whole = None if any(part is None or part.prompt is None for part in parts) else Condition.cat(parts)
    if whole is None or whole.rows is None:
        return whole
    return whole[torch.arange(count) % whole.rows]


def asks_for_classes(data: ConditionDataModule) -> bool:
    """Whether training asks the generator for classes, by its first batch."""
    condition = data.batch_at(0).condition
    return condition is not None and condition.label is not None


class SampleQuality(Evaluation):
    """Quality and diversity of generated samples against the data module's real data (its `reference()`).

    The metrics are those of `scoredistill.evaluation.evaluate_samples`, with standard errors, and with a classifier
    `classifier_accuracy`, on data that it was not trained on. Where training asks for classes, samples are drawn
    evenly over the classes of the data, which adds to the distances where the data themselves are uneven; otherwise
    for the prompts of its evaluation batches, or without any. Looking changes neither weights nor random states.

    The Frechet distance falls with the number of samples, and one set's is uncertain by a tenth of itself or more:
    compare means over several sets of the same size.

    Args:
        samples: how many are generated for one set, >= 4.
        extractor: features in which samples are compared, fitted to the data at the first look; null: a
            `ClassifierFeatures` where the data are labeled, else `PCAFeatures`.
        resamples: half-samples from which standard errors of a single set's metrics are computed, >= 0 and not 1; 0: no
            standard errors.
        sets: independent sets, >= 1; the metrics of several are their means, with standard errors from their spread.
        neighbors: k of precision, recall, density and coverage, >= 1.
        reference_teacher: steps of Heun's method with which the teacher itself is sampled, guided as in training, and
            judged as teacher/NAME at the end, >= 0; 0: not at all.
        interim: whether to look while training goes on too, and not only at the end.
        batch: samples generated at a time, >= 1.
        seed: of all randomness, in [0, 2^32).
    """

    def __init__(
        self,
        samples: int = 2000,
        extractor: FeatureExtractor | None = None,
        resamples: int = 20,
        sets: int = 1,
        neighbors: int = 5,
        reference_teacher: int = 0,
        interim: bool = False,
        batch: int = 256,
        seed: int = 0,
    ) -> None:
        require(">= 4", samples=samples)
        require(">= 0", resamples=resamples, reference_teacher=reference_teacher)
        require(">= 1", sets=sets, neighbors=neighbors, batch=batch)
        require("[0, 2^32)", seed=seed)
        _require_spread(resamples)
        self.samples, self.extractor, self.neighbors = samples, extractor, neighbors
        self.resamples, self.sets = resamples, sets
        self.reference_teacher, self.interim, self.batch, self.seed = reference_teacher, interim, batch, seed
        self._known: tuple[ConditionDataModule, SampleReport] | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_samples(self, module)
        if not hasattr(data, "reference"):
            raise TypeError(f"SampleQuality needs real data to compare with: Images; there is {type(data).__name__}")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        if not (final or self.interim):
            return {}
        report = self._report(module, data)
        labels = None
        if report.labels is not None and asks_for_classes(data):
            labels = even_labels(self.samples, report.labels.unique())
        asked = asked_texts(data, self.samples) if labels is None else classes(labels)

        def judged(draw: Callable[[int], Tensor]) -> dict[str, float]:
            if self.sets == 1:
                return report(draw(0), labels, self.resamples)
            return mean_over_sets([report(draw(number), labels, 0) for number in range(self.sets)])

        metrics = judged(lambda number: draw_samples(module, self.samples, asked, self.batch, self.seed, number))
        if isinstance(report.extractor, ClassifierFeatures) and report.extractor.accuracy is not None:
            metrics["classifier_accuracy"] = report.extractor.accuracy
        if final and self.reference_teacher:
            own = judged(lambda number: self._teacher_samples(module, report.shape, asked, number))
            metrics |= {f"teacher/{name}": value for name, value in own.items()}
        return metrics

    def _report(self, module: Distillation, data: ConditionDataModule) -> SampleReport:
        """The data's part of the metrics, and the fitted features, once for every look at the same data."""
        if self._known is None or self._known[0] is not data:
            self.check(module, data)
            real, labels = cast(Images, data).reference()
            with torch.no_grad():
                real = torch.cat([module.decode(part.to(module.device)).cpu() for part in real.split(self.batch)])
            extractor = self.extractor or (PCAFeatures() if labels is None else ClassifierFeatures())
            extractor.fit(real, labels).to(module.device)
            self._known = data, SampleReport(real, labels, extractor, self.neighbors)
        return self._known[1]

    def _teacher_samples(self, module: Distillation, shape: torch.Size, asked: Condition | None, number: int) -> Tensor:
        teacher, guidance = module.distiller.teacher, module.distiller.guidance
        shape = getattr(module.eval_generator, "shape", shape)

        def made(condition: Condition | None, size: int, rng: torch.Generator) -> Tensor:
            there = None if condition is None else condition.to(module.device)
            steps = self.reference_teacher
            return teacher.decode(sample(teacher, size, shape, there, steps=steps, guidance=guidance, rng=rng))

        with torch.no_grad(), eval_mode(teacher):
            return in_batches(made, self.samples, asked, self.batch, self.seed, TEACHER_STREAM, number)


class MixtureQuality(Evaluation):
    """Mode coverage, mode weights and Wasserstein distance of generated samples under a Gaussian mixture teacher.

    Beside the metrics of `mode_statistics` and `mode_divergences` there is `wasserstein2`, the exact distance of up to
    1000 samples to as many of the mixture, and `wasserstein2_floor`, that of two sets of the mixture's own samples;
    each has its standard error as `name_se`. Where training asks for classes they are drawn with the mixture's weights.

    Args:
        samples: how many are generated, >= 4.
        resamples: half-samples from which standard errors are computed, >= 0 and not 1; 0: no standard errors.
        interim: whether to look while training goes on too, and not only at the end.
        batch: samples generated at a time, >= 1.
        seed: of all randomness, in [0, 2^32).
    """

    def __init__(
        self, samples: int = 1000, resamples: int = 10, interim: bool = False, batch: int = 256, seed: int = 0
    ) -> None:
        require(">= 4", samples=samples)
        require(">= 0", resamples=resamples)
        require(">= 1", batch=batch)
        require("[0, 2^32)", seed=seed)
        _require_spread(resamples)
        self.samples, self.resamples, self.interim, self.batch, self.seed = samples, resamples, interim, batch, seed

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module, Distillation, "task: distillation")
        require_samples(self, module)
        require_part(self, cast(Distillation, module).distiller.teacher, GaussianMixture, "a GaussianMixture teacher")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        teacher = cast(GaussianMixture, module.distiller.teacher)
        if not (final or self.interim):
            return {}
        rng = generator_at(self.seed, 0, MIXTURE_STREAM)
        _, component = teacher.sample(self.samples, rng=rng)
        labels = teacher.labels[component].cpu() if teacher.labels is not None and asks_for_classes(data) else None
        x = draw_samples(module, self.samples, classes(labels), self.batch, self.seed).to(teacher.means)
        matched = min(self.samples, TRANSPORT_SAMPLES)
        true, other = (teacher.sample(matched, rng=rng)[0] for _ in range(2))

        def statistic(index: Tensor) -> dict[str, float]:
            return mode_statistics(x[index], teacher) | mode_divergences(x[index], teacher)

        def transport(index: Tensor) -> dict[str, float]:
            own = wasserstein2(x[index], true[index])
            return {"wasserstein2": own, "wasserstein2_floor": wasserstein2(other[index], true[index])}

        metrics = with_errors(statistic, len(x), self.resamples, rng)
        return metrics | with_errors(transport, matched, self.resamples, rng)


class ModeStatistics(Evaluation):
    """Coverage, mode weights and spread of image particles under a Gaussian mixture or a data set.

    With labeled components it also counts the share of each class.
    """

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, ImageParticles, "ImageParticles (MixtureQuality looks at samples)")
        teacher = cast(Distillation, module).distiller.teacher
        require_part(self, teacher, GaussianMixture, "a GaussianMixture or Empirical teacher")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator, teacher = (
            cast(ImageParticles, module.eval_generator),
            cast(GaussianMixture, module.distiller.teacher),
        )
        x = generator.values.detach()
        metrics = mode_statistics(x, teacher)
        nearest = torch.cdist(x.flatten(1).to(teacher.means), teacher.means).min(dim=1)
        metrics["nearest_mode_distance"] = float(nearest.values.mean())
        if teacher.labels is not None:
            labels = teacher.labels[nearest.indices]
            metrics |= {f"class_share/{int(c)}": float((labels == c).double().mean()) for c in teacher.labels.unique()}
        return metrics
