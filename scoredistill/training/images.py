"""The data module of real samples: pictures, latents or points, with their labels or captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from scoredistill.data.source import ImageSource
from scoredistill.diffusion.guidance import Guidance
from scoredistill.files import write_atomically
from scoredistill.networks.weight_files import read_safetensors
from scoredistill.ranges import require
from scoredistill.teachers.sampling import sample
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.conditions import LABEL_STREAM, ConditionDataModule, rank_of, uniform_labels
from scoredistill.training.distillation import Distillation
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Condition

DATA_STREAM = 2_000_003
"""Random stream of real samples; each process adds its rank."""

PAIR_STREAM = 5_000_011
"""Random stream of pairs and of their order."""

EVALUATION_STREAM = 4_000_037
"""Random stream of evaluation, different from those of training and equal on every process."""


class Images(ConditionDataModule):
    """Real samples, and the labels or captions that the generator is conditioned on.

    Batches are drawn with replacement. A batch is a function of seed, tick and rank, so a resumed run uses the same
    data.

    Args:
        source: the pictures, latents or points.
        batch_size: samples per batch and process, the number of real and of generated ones, >= 1.
        condition_on: the generator's condition: `data`, the classes of the batch's real samples; `uniform`, uniform
            classes, independent of the real samples; `text`, the captions of the real samples; None: no condition.
        flip: mirror half of the real pictures left to right.
        evaluation_size: number of samples of validate, test and predict, >= 1.
        reference_size: largest number of real samples that evaluation compares with, >= 1; None: all.
        seed: seed of the stream, in [0, 2^32).

    Raises:
        ValueError: if a size is not positive, the source lacks the labels or captions of the condition, or its samples
            cannot be mirrored.
    """

    batch_size: int

    def __init__(
        self,
        source: ImageSource,
        batch_size: int = 64,
        condition_on: Literal["data", "uniform", "text"] | None = None,
        flip: bool = False,
        evaluation_size: int = 64,
        reference_size: int | None = 10_000,
        seed: int = 0,
    ) -> None:
        require(">= 1", batch_size=batch_size, evaluation_size=evaluation_size, reference_size=reference_size)
        require("[0, 2^32)", seed=seed)
        super().__init__(batch_size=batch_size, seed=seed)
        kind = type(source).__name__
        if condition_on in ("data", "uniform") and source.classes is None:
            raise ValueError(f"data.condition_on: {kind} has no labels; leave it null")
        captions = source.captions if condition_on == "text" else None
        if condition_on == "text" and captions is None:
            raise ValueError(f"data.condition_on: {kind} has no captions; choose data, uniform or null")
        if flip and not source.flippable:
            raise ValueError(f"data.flip: a sample of {kind} cannot be mirrored; leave flip false")
        if reference_size is None and source.endless:
            raise ValueError(f"data.reference_size: {kind} has no end; set the number of samples to compare with")
        self.source = source
        self.condition_on = condition_on
        self.flip = flip
        self.captions = captions
        self.evaluation_size = evaluation_size
        self.reference_size = reference_size
        self.classes = source.classes

    def prepare_data(self) -> None:
        """Prepare the source's files, on one process per machine."""
        self.source.prepare()

    def batch_at(self, tick: int) -> Batch:
        rank = rank_of(self)
        streams = (DATA_STREAM + rank, LABEL_STREAM + rank)
        data_rng, label_rng = (generator_at(self.seed, tick, stream) for stream in streams)
        return self._batch(self.batch_size, data_rng, label_rng, self.flip)

    def evaluation_batches(self) -> list[Batch]:
        rng = generator_at(self.seed, 0, EVALUATION_STREAM)
        sizes = [len(part) for part in torch.arange(self.evaluation_size).split(self.batch_size)]
        return [self._batch(size, rng, rng, flip=False) for size in sizes]

    def reference(self) -> tuple[Tensor, Tensor | None]:
        """The real samples that evaluation compares with: all, or a random subset of `reference_size` samples.

        Returns:
            samples (N, *D), and their classes (N,) or None; equal at every call and on every process.
        """
        rng = generator_at(self.seed, 1, EVALUATION_STREAM)
        limit = self.reference_size
        if self.source.endless and limit is not None:
            return self.source.draw(limit, rng)
        if limit is None or limit >= len(self.source):
            return self.source.all()
        return self.source.take(torch.randperm(len(self.source), generator=rng)[:limit].sort().values)

    def _batch(self, size: int, data_rng: torch.Generator, label_rng: torch.Generator, flip: bool) -> Batch:
        if self.captions is None:
            data, data_label = self.source.draw(size, data_rng)
            condition = self._condition(data_label, size, label_rng)
        else:
            index = self.source.choose(size, data_rng)
            data = self.source.take(index)[0]
            data_label = None
            condition = Condition(tuple(self.captions[i] for i in index.tolist()))
        if flip:
            mirrored = torch.rand(size, generator=data_rng) < 0.5
            data = torch.where(mirrored.view(-1, *(1,) * (data.ndim - 1)), data.flip(-1), data)
        return Batch(condition, size, data, data_label)

    def _condition(self, data_label: Tensor | None, size: int, rng: torch.Generator) -> Condition | None:
        if self.condition_on is None or data_label is None:
            return None
        if self.condition_on == "uniform" and self.source.classes is not None:
            return Condition(label=uniform_labels(self.source.classes, size, rng))
        return Condition(label=data_label)


class TeacherPairs(Images):
    """`Images` with pairs of noise and the teacher's own sample from it, for `DMD` and `Regression`.

    The pairs are made once, before training, by the probability flow of the run's guided teacher under uniform classes,
    from noise z in the units of a student's first input. A batch has the condition of its pairs, drawn with
    replacement, and real samples that are independent of them.

    "One-step Diffusion with Distribution Matching Distillation" (2023), arXiv:2311.18828, section 4.2.

    Args:
        source: the pictures, latents or points; those for evaluation and discriminators.
        pairs: number of pairs, >= 1.
        steps: noise levels of Heun's method, >= 1; the teacher is evaluated 2 steps - 1 times per pair.
        file: a .safetensors file that keeps the pairs, read if it exists; None: they are made anew by each run.
        batch_size: samples per batch and process, >= 1.
        evaluation_size: number of samples of validate, test and predict, >= 1.
        reference_size: largest number of real samples that evaluation compares with, >= 1; None: all.
        seed: seed of the stream and of the pairs, in [0, 2^32).
    """

    def __init__(
        self,
        source: ImageSource,
        pairs: int = 4096,
        steps: int = 18,
        file: str | None = None,
        batch_size: int = 64,
        evaluation_size: int = 64,
        reference_size: int | None = 10_000,
        seed: int = 0,
    ) -> None:
        require(">= 1", pairs=pairs, steps=steps, batch_size=batch_size, evaluation_size=evaluation_size)
        require(">= 1", reference_size=reference_size)
        require("[0, 2^32)", seed=seed)
        condition_on: Literal["uniform"] | None = None if source.classes is None else "uniform"
        super().__init__(source, batch_size, condition_on, False, evaluation_size, reference_size, seed)
        self.pairs, self.steps, self.file = pairs, steps, file
        self._made: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        """Make the pairs, or read them.

        Raises:
            ValueError: if the run has no teacher, or the file has other pairs.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        if stage != "fit":
            return
        if not isinstance(module, Distillation):
            raise ValueError("TeacherPairs needs a teacher: it is for distillation")
        if self.file is not None and Path(self.file).is_file():
            self._made = read_safetensors(self.file)
            self._require_fitting(self.file)
            return
        teacher = module.distiller.teacher.to(module.trainer.strategy.root_device)
        self._made = self.make(teacher, module.distiller.guidance)
        if self.file is not None and module.trainer.is_global_zero:
            content = save(self._made)
            write_atomically(Path(self.file), lambda file: file.write(content))

    def make(self, teacher: Teacher, guidance: Guidance) -> dict[str, Tensor]:
        """The pairs z, target and, if there are classes, label, one row each."""
        rng, shape = generator_at(self.seed, 0, PAIR_STREAM), self.source.shape
        made: dict[str, list[Tensor]] = {}
        for rows in torch.arange(self.pairs).split(self.batch_size):
            z = torch.randn(len(rows), *shape, generator=rng)
            condition = None
            if self.source.classes is not None:
                made.setdefault("label", []).append(uniform_labels(self.source.classes, len(rows), rng))
                condition = Condition(label=made["label"][-1])
            target = sample(teacher, len(rows), shape, condition, steps=self.steps, guidance=guidance, rng=rng, z=z)
            made.setdefault("z", []).append(z)
            made.setdefault("target", []).append(target.cpu())
        return {name: torch.cat(parts) for name, parts in made.items()}

    def batch_at(self, tick: int) -> Batch:
        batch = super().batch_at(tick)
        if not self._made:
            raise ValueError("TeacherPairs has no pairs yet: it makes them at the start of fit")
        rng = generator_at(self.seed, tick, PAIR_STREAM + rank_of(self))
        index = torch.randint(len(self._made["z"]), (self.batch_size,), generator=rng)
        chosen = {name: value[index] for name, value in self._made.items()}
        condition = Condition(label=chosen["label"]) if "label" in chosen else None
        return replace(batch, condition=condition, z=chosen["z"], target=chosen["target"])

    def _require_fitting(self, file: str) -> None:
        z, target = self._made.get("z"), self._made.get("target")
        labeled = ("label" in self._made) == (self.source.classes is not None)
        if z is None or target is None or z.shape != target.shape or z.shape[1:] != self.source.shape or not labeled:
            raise ValueError(
                f"data.file: {file} has no pairs of {tuple(self.source.shape)} with such labels: remove it"
            )
