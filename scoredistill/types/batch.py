"""The input of one training step, and the rows of it that a process holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scoredistill.types.sample import Sample
from scoredistill.ranges import require
from scoredistill.types.condition import Condition, moved, rows_of


@dataclass(frozen=True)
class Shard:
    """The rows of a batch held by this process. This class holds all rows; subclasses exchange data.

    Losses, generators and the distiller draw noise and compute batch statistics through the shard, so their results do
    not depend on how a batch is distributed.

    Args:
        draw_on_device: draw noise on the samples' device, which is faster on an accelerator; otherwise on the CPU, so
            that all devices use the same numbers.
    """

    draw_on_device: bool = False

    @property
    def parts(self) -> int:
        """Number of shards of the batch."""
        return 1

    def own(self, value: Tensor) -> Tensor:
        """Select the local rows of a tensor that has the rows of the complete batch."""
        return value

    def draw(self, draw_rows: Callable[[int], Tensor], rows: int) -> Tensor:
        """Random numbers for the local rows, equal to those of the complete batch.

        Args:
            draw_rows: draws numbers for a given number of rows, from a generator with the same state in every process.
            rows: number of local rows.
        """
        return draw_rows(rows)

    def noise_like(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for the local rows.

        Args:
            x: (B, *D), which gives shape, type and device.
            rng: CPU generator; None: torch's global one.
        """
        return self.normal(x.shape, x.dtype, x.device, rng)

    def normal(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, rng: torch.Generator | None = None
    ) -> Tensor:
        """Standard normal noise of a given shape.

        Args:
            shape: of the result.
            dtype, device: of the result.
            rng: CPU generator; None: torch's global one.
        """
        if not self.draw_on_device or device.type == "cpu":
            return torch.randn(tuple(shape), dtype=dtype, generator=rng).to(device)
        own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
        return torch.randn(tuple(shape), dtype=dtype, device=device, generator=own)

    def with_population(self, sample: Sample) -> Sample:
        """Set the samples of all shards as the population; samples are returned unchanged if there is one shard."""
        return sample

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the shards' tensors, without gradient."""
        return value.detach()

    def max(self, value: Tensor) -> Tensor:
        """The elementwise maximum of the shards' tensors, without gradient."""
        return value.detach()


WHOLE = Shard()
"""The shard of a single process."""

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
        dtype = torch.get_default_dtype()
        device = device or torch.device("cpu")
        return self.shard.normal((whole, *shape), dtype, device, rng)[first : first + self.rows]

    def uniform(self, shape: Sequence[int], rng: torch.Generator | None = None) -> Tensor:
        """Uniform numbers in [0, 1) for each row, (B, *shape); otherwise as `noise`."""
        first, whole = self.part or (0, self.rows)
        return torch.rand(whole, *shape, generator=rng)[first : first + self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """Move everything to a device."""
        tensors = {name: moved(getattr(self, name), device) for name in TENSORS}
        return replace(self, condition=moved(self.condition, device), **tensors)
