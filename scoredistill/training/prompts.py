"""Prompts of a file, tick by tick: for text-conditional students that need no data."""

from __future__ import annotations

from pathlib import Path

import torch

from scoredistill.ranges import require
from scoredistill.training.data import Conditions
from scoredistill.training.images import LABEL_STREAM, rank_of
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Condition


class Prompts(Conditions):
    """Prompts of a text file, one a line, and no data: what a text-conditional student needs that learns from its
    teacher alone. Batches are drawn with replacement, each line equally likely; empty lines are left out.

    A batch is a function of seed, tick and rank, so that a run that was killed and resumed sees the same prompts.

    Args:
        file: in UTF-8.
        size: samples of a batch, on each process, >= 1.
        negative_prompt: what guidance moves away from; null: the unconditional model.
        evaluation_size: samples of validate, test and predict, whose prompts take turns from the first line on, >= 1.
        seed: of the stream, in [0, 2^32).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no prompt or is not UTF-8, or a number is not positive.
    """

    def __init__(
        self,
        file: str | Path,
        size: int,
        negative_prompt: str | None = None,
        evaluation_size: int = 64,
        seed: int = 0,
    ) -> None:
        require(">= 1", size=size, evaluation_size=evaluation_size)
        require("[0, 2^32)", seed=seed)
        super().__init__(negative_prompt=negative_prompt, size=size, seed=seed)
        if not Path(file).is_file():
            raise FileNotFoundError(f"data.file: there is no {file}; give a text file with one prompt a line")
        try:
            lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"data.file: {file} is not UTF-8 ({error})") from error
        self.prompts = tuple(line.strip() for line in lines if line.strip())
        if not self.prompts:
            raise ValueError(f"data.file: {file} holds no prompt; write one a line")
        self.batch_size, self.evaluation_size = size, evaluation_size

    def batch_at(self, tick: int) -> Batch:
        rng = generator_at(self.seed, tick, LABEL_STREAM + rank_of(self))
        return self._batch(torch.randint(len(self.prompts), (self.batch_size,), generator=rng).tolist())

    def evaluation_batches(self) -> list[Batch]:
        index = torch.arange(self.evaluation_size) % len(self.prompts)
        return [self._batch(part.tolist()) for part in index.split(self.batch_size)]

    def _batch(self, index: list[int]) -> Batch:
        return Batch(Condition(tuple(self.prompts[i] for i in index), self.negative_prompt), len(index))
