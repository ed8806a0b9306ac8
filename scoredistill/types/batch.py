"""What one update works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types.condition import Condition, moved, rows_of
from scoredistill.types.shard import WHOLE, Shard


@dataclass(frozen=True)
class Batch:
    """What a data module hands to one update.

    Args:
        condition: what to generate; for 3D generators its camera has V rows, each seen by every particle.
        size: number of samples to generate, for generators from noise, >= 1.
        data: (B, *D) real samples, for objectives that look at data.
        data_label: (B,) integer class labels of the real samples, which need not be those of the condition.
        part: which rows of a larger batch these are, as the first one's position and the larger batch's rows, so that
            what a generator draws at random does not depend on how a batch was split, each >= 0; None: it is whole.
        shard: which of all rows these are, where several hold the particles of one batch.
    """

    condition: Condition | None = None
    size: int | None = None
    data: Tensor | None = None
    data_label: Tensor | None = None
    part: tuple[int, int] | None = None
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        require(">= 1", size=self.size)
        require(">= 0", part=self.part)

    @property
    def count(self) -> int | None:
        """Number of samples that are asked for, or None where neither the condition nor `size` says it."""
        rows = None if self.condition is None else self.condition.rows
        return self.size if rows is None else rows

    @property
    def rows(self) -> int:
        """Number of samples that are asked for.

        Raises:
            ValueError: if neither the condition nor `size` says it.
        """
        if self.count is None:
            raise ValueError("a generator from noise needs to be told how many samples: set data.init_args.batch_size")
        return self.count

    def split(self, parts: int) -> list[Batch]:
        """Cut into consecutive micro-batches of (nearly) equal size.

        Raises:
            ValueError: if there are fewer rows than parts, or no rows at all.
        """
        rows = self.count
        if rows is None or rows < parts:
            raise ValueError(
                f"plan.accumulate: a batch of {rows or 'no'} rows cannot be split into {parts} micro-batches; it needs "
                "as many cameras, labels or data.init_args.batch_size (a generator that makes all particles at once "
                "has none)"
            )
        return [self._rows(index, rows) for index in torch.arange(rows).tensor_split(parts)]

    def _rows(self, index: Tensor, whole: int) -> Batch:
        condition = None if self.condition is None else self.condition[index]
        size = None if self.size is None else len(index)
        data, label = rows_of(self.data, index), rows_of(self.data_label, index)
        return Batch(condition, size, data, label, (int(index[0]), whole), self.shard)

    def noise(
        self, shape: Sequence[int], rng: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        """Standard normal noise for each row, (B, *shape): the same whether the batch is whole or a part.

        Args:
            shape: *D, the shape of one row.
            rng: CPU generator; None: torch's global one.
            device: where it will be needed; None: on the CPU.
        """
        first, whole = self.part or (0, self.rows)
        dtype, device = torch.get_default_dtype(), device or torch.device("cpu")
        return self.shard.normal((whole, *shape), dtype, device, rng)[first : first + self.rows]

    def uniform(self, shape: Sequence[int], rng: torch.Generator | None = None) -> Tensor:
        """Numbers in [0, 1) for each row, as `noise` has normal ones."""
        first, whole = self.part or (0, self.rows)
        return torch.rand(whole, *shape, generator=rng)[first : first + self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """Move everything to a device."""
        data, label = moved(self.data, device), moved(self.data_label, device)
        return Batch(moved(self.condition, device), self.size, data, label, self.part, self.shard)
