"""The input of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types.condition import Condition, moved, rows_of
from scoredistill.types.shard import WHOLE, Shard

TENSORS = ("data", "data_label", "z", "target")
"""Fields of a `Batch` that are tensors with a row for each sample."""


@dataclass(frozen=True)
class Batch:
    """The input of one training step, as a data module yields it.

    With `z` and `target` it holds pairs: a generator from noise uses z in place of its own and passes the target on.
    Other generators ignore both.

    Args:
        condition: what to generate; for 3D generators its camera has V rows, and every particle is rendered from each.
        size: number of samples to generate, for generators from noise, >= 1.
        data: (B, *D) real samples, for objectives that use data.
        data_label: (B,) integer class labels of the real samples, which need not be those of the condition.
        z: (B, *D) input noise of the generator; None: drawn.
        target: (B, *D) the sample that belongs to each row of z, for regression; None: none.
        part: position of the first row in a larger batch and the number of rows of that batch, each >= 0, so that
            random numbers do not depend on how a batch is split; None: the batch is complete.
        shard: the rows held here, where the particles of one batch are spread over several processes.
    """

    condition: Condition | None = None
    size: int | None = None
    data: Tensor | None = None
    data_label: Tensor | None = None
    z: Tensor | None = None
    target: Tensor | None = None
    part: tuple[int, int] | None = None
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if self.size is not None:
            require(">= 1", size=self.size)
        if self.part is not None:
            require(">= 0", part=self.part)
        if self.target is not None and self.z is None:
            raise ValueError("Batch.target belongs to the noise in Batch.z: give both")

    @property
    def count(self) -> int | None:
        """Number of requested samples, or None if neither the condition nor `size` determines it."""
        rows = None if self.condition is None else self.condition.rows
        return self.size if rows is None else rows

    @property
    def rows(self) -> int:
        """Number of requested samples.

        Raises:
            ValueError: if neither the condition nor `size` determines it.
        """
        if self.count is None:
            raise ValueError("a generator from noise needs the number of samples: set data.init_args.batch_size")
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
        tensors = {name: rows_of(getattr(self, name), index) for name in TENSORS}
        return replace(self, condition=condition, size=size, part=(int(index[0]), whole), **tensors)

    def noise(
        self, shape: Sequence[int], rng: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        """Standard normal noise for each row, (B, *shape). A micro-batch gets its rows of the complete batch's noise.

        Args:
            shape: *D, the shape of one row.
            rng: CPU generator; None: torch's global one.
            device: of the result; None: the CPU.
        """
        first, whole = self.part or (0, self.rows)
        dtype, device = torch.get_default_dtype(), device or torch.device("cpu")
        return self.shard.normal((whole, *shape), dtype, device, rng)[first : first + self.rows]

    def uniform(self, shape: Sequence[int], rng: torch.Generator | None = None) -> Tensor:
        """Uniform numbers in [0, 1) for each row, (B, *shape); otherwise as `noise`."""
        first, whole = self.part or (0, self.rows)
        return torch.rand(whole, *shape, generator=rng)[first : first + self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """Move everything to a device."""
        tensors = {name: moved(getattr(self, name), device) for name in TENSORS}
        return replace(self, condition=moved(self.condition, device), **tensors)
