"""Which rows of a batch are held here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from scoredistill.types.sample import Sample


class Shard:
    """The rows of a batch that are held here: this class holds all of them, and nothing is exchanged.

    Noise is drawn for the whole batch, and statistics of a batch are taken over all of its rows. A loss, a generator or
    a distiller asks the shard for both, and so gives the same result wherever the other rows are.
    """

    parts: int = 1
    """Shards of the batch."""

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
