"""Metrics of samples and particles: distances to data, classes, memorization, modes of an exact teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from pytorch_lightning import Callback
from torch import Tensor

from scoredistill.evaluation.classes import even_labels
from scoredistill.evaluation.features import ClassifierFeatures, FeatureExtractor, PCAFeatures
from scoredistill.evaluation.modes import mode_divergences, mode_statistics, wasserstein2
from scoredistill.evaluation.resampling import mean_over_sets, with_errors
from scoredistill.evaluation.sample_report import SampleReport
from scoredistill.generators.image import ImageParticles
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.sampling import sample
from scoredistill.training.callbacks.evaluation import Evaluation, require_part
from scoredistill.training.conditions import ConditionDataModule
from scoredistill.training.distillation import Distillation
from scoredistill.training.images import Images
from scoredistill.training.randomness import generator_at
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition

SAMPLES_STREAM = 2_000_003
TEACHER_STREAM = 2_000_033
MIXTURE_STREAM = 2_000_063
"""Random streams of the three kinds of samples."""
TRANSPORT_SAMPLES = 1000
"""Largest number of samples that are matched exactly; the time grows with its cube."""


def draw_samples(
    module: TrainingModule,
    count: int,
    condition: Condition | None = None,
    batch: int = 256,
    seed: int = 0,
    number: int = 0,
) -> Tensor:
    """Draw samples (count, *D) of the evaluated generator, as a function of its weights and the seed alone.

    Latents are decoded. The samples are on the CPU.

    Args:
        module: the module of the evaluated generator.
        count: number of samples.
        condition: condition with count rows, or None.
        batch: number of samples per call.
        seed: seed of the noise.
        number: index of the set of samples; different sets are independent.
    """
    generator = module.eval_generator

    def draw(condition: Condition | None, size: int, rng: torch.Generator) -> Tensor:
        with torch.no_grad():
            return module.decode(generator(module.with_embeddings(Batch(condition, size).to(module.device)), rng).x)

    with eval_mode(generator):
        return in_batches(draw, count, condition, batch, seed, SAMPLES_STREAM, number)


def require_samples(callback: Callback, module: TrainingModule) -> None:
    """Check that a callback's generator samples from noise.

    Raises:
        TypeError: if it holds particles.
    """
    generator = module.eval_generator
    if generator.particles is not None:
        raise TypeError(
            f"{type(callback).__name__} needs a generator that samples from noise; {type(generator).__name__} holds "
            "particles (ModeStatistics evaluates particles, GalleryFidelity and PromptFidelity scenes)"
        )


def in_batches(
    draw: Callable[[Condition | None, int, torch.Generator], Tensor],
    count: int,
    condition: Condition | None,
    batch: int,
    seed: int,
    stream: int,
    number: int = 0,
) -> Tensor:
    """Draw samples in batches, each batch of each set with independent random numbers.

    Args:
        draw: draws samples, called with a condition, their number and a CPU generator.
        count: number of samples.
        condition: condition with count rows, or None.
        batch: number of samples per call.
        seed: seed of the random numbers.
        stream: stream of the random numbers.
        number: index of the set.
    """
    parts = []
    pieces = torch.arange(count).split(batch)
    for step, rows in enumerate(pieces, number * len(pieces)):
        part = None if condition is None else condition[rows]
        parts.append(draw(part, len(rows), generator_at(seed, step, stream)).detach().cpu())
    return torch.cat(parts)


def _require_spread(resamples: int) -> None:
    if resamples == 1:
        raise ValueError("resamples: a single half-sample has no spread; set 0, or at least 2")


def class_condition(labels: Tensor | None) -> Condition | None:
    """The condition of class labels (B,), or None."""
    return None if labels is None else Condition(label=labels)


def evaluation_prompts(data: ConditionDataModule, count: int) -> Condition | None:
    """The prompts of the data's evaluation batches, repeated to `count` rows; None without prompts."""
    parts = [batch.condition for batch in data.evaluation_batches()]
    prompts = None if any(part is None or part.prompt is None for part in parts) else Condition.cat(parts)
    if prompts is None or prompts.rows is None:
        return prompts
    return prompts[torch.arange(count) % prompts.rows]


def has_class_condition(data: ConditionDataModule) -> bool:
    """Whether the first training batch is conditioned on classes."""
    condition = data.batch_at(0).condition
    return condition is not None and condition.label is not None


class SampleQuality(Evaluation):
    """Quality and diversity of generated samples, compared with the data module's real data (its `reference()`).

    The metrics are those of `scoredistill.evaluation.evaluate_samples`, with standard errors, and with a classifier
    also `classifier_accuracy`, its accuracy on held-out data. If training is conditioned on classes, the samples are
    evenly distributed over the classes of the data, which increases the distances if the data are uneven; otherwise
    they are drawn for the prompts of the evaluation batches, or unconditionally. Evaluation changes neither weights nor
    random states.

    The Frechet distance decreases with the number of samples, and the uncertainty of a single set is 10% or more:
    compare means over several sets of the same size.

    Args:
        samples: number of generated samples per set, >= 4.
        extractor: features in which samples are compared, fitted to the data in the first evaluation; None:
            `ClassifierFeatures` for labeled data, otherwise `PCAFeatures`.
        resamples: half-samples from which standard errors of a single set's metrics are computed, >= 0 and not 1; 0: no
            standard errors.
        sets: number of independent sets, >= 1; metrics of several sets are means, with standard errors from the spread.
        neighbors: k of precision, recall, density and coverage, >= 1.
        reference_teacher: steps of Heun's method with which the teacher is sampled, guided as in training, for the
            final metrics teacher/NAME, >= 0; 0: no teacher samples.
        interim: whether to evaluate during training as well as at the end.
        batch: number of samples per call of the generator, >= 1.
        seed: seed of all random numbers, in [0, 2^32).
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
        self.samples = samples
        self.extractor = extractor
        self.neighbors = neighbors
        self.resamples = resamples
        self.sets = sets
        self.reference_teacher = reference_teacher
        self.interim = interim
        self.batch = batch
        self.seed = seed
        self._cached: tuple[ConditionDataModule, SampleReport] | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_samples(self, module)
        if not hasattr(data, "reference"):
            raise TypeError(f"SampleQuality needs real data to compare with, such as Images; got {type(data).__name__}")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        if not (final or self.interim):
            return {}
        report = self._report(module, data)
        labels = None
        if report.labels is not None and has_class_condition(data):
            labels = even_labels(self.samples, report.labels.unique())
        condition = evaluation_prompts(data, self.samples) if labels is None else class_condition(labels)

        def evaluated(draw: Callable[[int], Tensor]) -> dict[str, float]:
            if self.sets == 1:
                return report(draw(0), labels, self.resamples)
            return mean_over_sets([report(draw(number), labels, 0) for number in range(self.sets)])

        metrics = evaluated(lambda number: draw_samples(module, self.samples, condition, self.batch, self.seed, number))
        if isinstance(report.extractor, ClassifierFeatures) and report.extractor.accuracy is not None:
            metrics["classifier_accuracy"] = report.extractor.accuracy
        if final and self.reference_teacher:
            teacher = evaluated(lambda number: self._teacher_samples(module, report.shape, condition, number))
            metrics |= {f"teacher/{name}": value for name, value in teacher.items()}
        return metrics

    def _report(self, module: Distillation, data: ConditionDataModule) -> SampleReport:
        """The data's part of the metrics and the fitted features, computed once for the same data."""
        if self._cached is None or self._cached[0] is not data:
            self.check(module, data)
            real, labels = cast(Images, data).reference()
            with torch.no_grad():
                real = torch.cat([module.decode(part.to(module.device)).cpu() for part in real.split(self.batch)])
            extractor = self.extractor or (PCAFeatures() if labels is None else ClassifierFeatures())
            extractor.fit(real, labels).to(module.device)
            self._cached = data, SampleReport(real, labels, extractor, self.neighbors)
        return self._cached[1]

    def _teacher_samples(
        self, module: Distillation, shape: torch.Size, condition: Condition | None, number: int
    ) -> Tensor:
        teacher, guidance = module.distiller.teacher, module.distiller.guidance
        shape = getattr(module.eval_generator, "shape", shape)

        def draw(part: Condition | None, size: int, rng: torch.Generator) -> Tensor:
            part = None if part is None else part.to(module.device)
            steps = self.reference_teacher
            return teacher.decode(sample(teacher, size, shape, part, steps=steps, guidance=guidance, rng=rng))

        with torch.no_grad(), eval_mode(teacher):
            return in_batches(draw, self.samples, condition, self.batch, self.seed, TEACHER_STREAM, number)


class MixtureQuality(Evaluation):
    """Mode coverage, mode weights and Wasserstein distance of generated samples under a Gaussian mixture teacher.

    The metrics are those of `mode_statistics` and `mode_divergences`; `wasserstein2`, the exact distance of up to 1000
    samples to equally many of the mixture; and `wasserstein2_floor`, that of two sets of samples of the mixture. Each
    has a standard error `name_se`. If training is conditioned on classes, they are drawn with the mixture's weights.

    Args:
        samples: number of generated samples, >= 4.
        resamples: half-samples from which standard errors are computed, >= 0 and not 1; 0: no standard errors.
        interim: whether to evaluate during training as well as at the end.
        batch: number of samples per call of the generator, >= 1.
        seed: seed of all random numbers, in [0, 2^32).
    """

    def __init__(
        self, samples: int = 1000, resamples: int = 10, interim: bool = False, batch: int = 256, seed: int = 0
    ) -> None:
        require(">= 4", samples=samples)
        require(">= 0", resamples=resamples)
        require(">= 1", batch=batch)
        require("[0, 2^32)", seed=seed)
        _require_spread(resamples)
        self.samples = samples
        self.resamples = resamples
        self.interim = interim
        self.batch = batch
        self.seed = seed

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
        labels = teacher.labels[component].cpu() if teacher.labels is not None and has_class_condition(data) else None
        x = draw_samples(module, self.samples, class_condition(labels), self.batch, self.seed).to(teacher.means)
        matched = min(self.samples, TRANSPORT_SAMPLES)
        true, other = (teacher.sample(matched, rng=rng)[0] for _ in range(2))

        def statistic(index: Tensor) -> dict[str, float]:
            return mode_statistics(x[index], teacher) | mode_divergences(x[index], teacher)

        def transport(index: Tensor) -> dict[str, float]:
            distance = wasserstein2(x[index], true[index])
            return {"wasserstein2": distance, "wasserstein2_floor": wasserstein2(other[index], true[index])}

        metrics = with_errors(statistic, len(x), self.resamples, rng)
        return metrics | with_errors(transport, matched, self.resamples, rng)


class ModeStatistics(Evaluation):
    """Coverage, mode weights and spread of image particles under a Gaussian mixture or a data set.

    If the data ask for a single class, they are relative to its components. With labeled components, class_share/c is
    the share of class c.
    """

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, ImageParticles, "ImageParticles (MixtureQuality evaluates samples)")
        teacher = cast(Distillation, module).distiller.teacher
        require_part(self, teacher, GaussianMixture, "a GaussianMixture or Empirical teacher")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator = cast(ImageParticles, module.eval_generator)
        teacher = cast(GaussianMixture, module.distiller.teacher)
        x = generator.values.detach()
        classes = set(data.labels or ())
        wanted = teacher.of_class(classes.pop()) if len(classes) == 1 and teacher.labels is not None else teacher
        metrics = mode_statistics(x, wanted)
        flat = x.flatten(1).to(teacher.means)
        metrics["nearest_mode_distance"] = float(torch.cdist(flat, wanted.means).min(dim=1).values.mean())
        nearest = torch.cdist(flat, teacher.means).min(dim=1)
        if teacher.labels is not None:
            labels = teacher.labels[nearest.indices]
            metrics |= {f"class_share/{int(c)}": float((labels == c).double().mean()) for c in teacher.labels.unique()}
        return metrics
