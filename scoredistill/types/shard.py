"""The rows of a batch that a process holds, and their random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scoredistill.types.sample import Sample


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
            return torch.randn(*shape, dtype=dtype, generator=rng).to(device)
        own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
        return torch.randn(*shape, dtype=dtype, device=device, generator=own)

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
