"""The base class of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from scoredistill.types import Condition

NO_LABEL = -1
"""Class label of an unconditional row in a batch with labels."""


class Backbone(nn.Module, ABC):
    """A network of (x_t, noise level, condition). A subclass implements `forward`, and for discriminators on its
    features also `bottleneck` and `width`.
    """

    shardable = True
    """Whether weights may be sharded over processes; False if the forward pass changes them."""

    @abstractmethod
    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        """The raw output.

        Args:
            x: (B, *D), scaled to about unit variance.
            log_snr: (B,) log(alpha^2 / sigma^2).
            condition: B rows, or None. A row with the label `NO_LABEL` is unconditional.

        Returns:
            (B, *D).
        """

    @property
    def bottleneck(self) -> nn.Module:
        """The layer whose output is the network's deepest representation of its input.

        Raises:
            TypeError: if the network does not define one.
        """
        raise TypeError(f"{type(self).__name__} defines no bottleneck, which a discriminator on its features needs")

    @property
    def spatial(self) -> bool:
        """Whether the bottleneck's output is a map (B, width, H, W)."""
        return False

    @property
    def width(self) -> int:
        """Channels of the bottleneck's output, which is (B, width), (B, width, H, W) or (B, L, width).

        Raises:
            TypeError: if the network does not define a bottleneck.
        """
        raise TypeError(f"{type(self).__name__} defines no bottleneck, which a discriminator on its features needs")

    def features(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        """The bottleneck's output, (B, width), (B, width, H, W) or (B, L, width). Later layers are not computed.

        Arguments are those of `forward`.

        Raises:
            TypeError: if the network does not define a bottleneck.
        """
        with self._stopping_at(self.bottleneck):
            try:
                self(x, log_snr, condition)
            except _Reached as reached:
                return reached.output
        raise RuntimeError(f"the forward pass of {type(self).__name__} does not go through its bottleneck")

    @staticmethod
    @contextmanager
    def _stopping_at(layer: nn.Module) -> Iterator[None]:
        def stop(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            raise _Reached(output[0] if isinstance(output, tuple) else output)

        handle = layer.register_forward_hook(stop)
        try:
            yield
        finally:
            handle.remove()


class _Reached(Exception):
    """Leaves a forward pass with the bottleneck's output, because architectures cannot run only their first half."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
