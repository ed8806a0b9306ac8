"""The data module of real samples: pictures, latents or points, with their labels or captions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scoredistill.data.source import ImageSource
from scoredistill.ranges import require
from scoredistill.training.conditions import LABEL_STREAM, ConditionDataModule, rank_of, uniform_labels
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Condition

DATA_STREAM = 2_000_003
"""Random stream of real samples; each process adds its rank."""

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
