"""What every network owes, whoever uses it: teacher, critic, student or discriminator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from scoredistill.types import Condition


class Backbone(nn.Module, ABC):
    """A network of (x_t, noise level, condition). A subclass implements `forward`; one that can be looked into, as a
    discriminator does, also `bottleneck` and `width`.
    """

    @abstractmethod
    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        """The raw output.

        Args:
            x: (B, *D), scaled to about unit variance.
            log_snr: (B,) log(alpha^2 / sigma^2).
            condition: B rows, or None.

        Returns:
            (B, *D).
        """

    @property
    def bottleneck(self) -> nn.Module:
        """The layer whose output is the network's deepest description of its input.

        Raises:
            TypeError: if the network does not name one.
        """
        raise TypeError(f"{type(self).__name__} names no bottleneck, which a discriminator on its features needs")

    @property
    def spatial(self) -> bool:
        """Whether the bottleneck's output is a map (B, width, H, W)."""
        return False

    @property
    def width(self) -> int:
        """Channels of the bottleneck's output, which is (B, width), (B, width, H, W) or (B, L, width).

        Raises:
            TypeError: if the network does not name one.
        """
        raise TypeError(f"{type(self).__name__} names no bottleneck, which a discriminator on its features needs")

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Collect the bottleneck's output of every forward inside the `with` block."""
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = self.bottleneck.register_forward_hook(keep)
        try:
            yield seen
        finally:
            handle.remove()
