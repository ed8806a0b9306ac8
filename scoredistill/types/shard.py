"""Which rows of a batch are held here, and where their random numbers come from."""

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
    """The rows of a batch that are held here: this class holds all of them, and nothing is exchanged.

    Noise is drawn for the whole batch, and statistics of a batch are taken over all of its rows. A loss, a generator or
    a distiller asks the shard for both, and so gives the same result wherever the other rows are.

    Args:
        draw_on_device: draw noise where the samples are, which is quicker on an accelerator; otherwise on the CPU, so
            that every device sees the same numbers.
    """

    draw_on_device: bool = False

    @property
    def parts(self) -> int:
        """Shards of the batch."""
        return 1

    def own(self, value: Tensor) -> Tensor:
        """The rows held here of a tensor with the whole batch's rows."""
        return value

    def draw(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """Random numbers for the rows held here, the same as if the batch were whole.

        Args:
            draw: makes numbers for that many rows, from a random generator that is in the same state everywhere.
            rows: held here.
        """
        return self.own(draw(rows * self.parts))

    def noise_like(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for the rows held here.

        Args:
            x: (B, *D) whose shape, type and device count.
            rng: CPU generator; None: torch's global one.
        """
        return self.draw(lambda rows: self.normal((rows, *x.shape[1:]), x.dtype, x.device, rng), len(x))

    def normal(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, rng: torch.Generator | None = None
    ) -> Tensor:
        """Standard normal noise, for as many rows as are asked for.

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
        """The samples with those of the other shards as their population; as they are where there are none."""
        return sample

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the shards' tensors, without gradient."""
        return value.detach()

    def max(self, value: Tensor) -> Tensor:
        """The elementwise maximum of the shards' tensors, without gradient."""
        return value.detach()


WHOLE = Shard()
"""All rows are here."""
