"""The base class of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from scoredistill.types import Condition

NO_LABEL = -1
"""Class label of an unconditional row in a batch with labels."""


class FeatureLayer(NamedTuple):
    """A layer whose output serves as features: (B, width, H, W) if `spatial`, else (B, width) or (B, L, width)."""

    module: nn.Module
    width: int
    spatial: bool


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

    @property
    def feature_layers(self) -> Sequence[FeatureLayer]:
        """Layers at several depths whose outputs a discriminator may use, in the order of the forward pass.

        The last one is the bottleneck, which by default is the only one.

        Raises:
            TypeError: if the network does not define a bottleneck.
        """
        return [FeatureLayer(self.bottleneck, self.width, self.spatial)]

    def features(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        """The bottleneck's output, (B, width), (B, width, H, W) or (B, L, width). Later layers are not computed.

        Arguments are those of `forward`.

        Raises:
            TypeError: if the network does not define a bottleneck.
        """
        return self.features_of([self.bottleneck], x, log_snr, condition)[0]

    def features_of(
        self, layers: Sequence[nn.Module], x: Tensor, log_snr: Tensor, condition: Condition | None
    ) -> list[Tensor]:
        """The outputs of several layers from one forward pass, which ends at the last of them.

        Args:
            layers: in the order of the forward pass, >= 1.
            x, log_snr, condition: as in `forward`.
        """
        outputs: list[Tensor] = []
        with self._collecting(layers, outputs):
            try:
                self(x, log_snr, condition)
            except _Reached:
                return outputs
        raise RuntimeError(f"the forward pass of {type(self).__name__} does not go through the layers of its features")

    @staticmethod
    @contextmanager
    def _collecting(layers: Sequence[nn.Module], outputs: list[Tensor]) -> Iterator[None]:
        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)
            if len(outputs) == len(layers):
                raise _Reached

        handles = [layer.register_forward_hook(keep) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Reached(Exception):
    """Leaves a forward pass at the last layer needed, because architectures cannot run only their first half."""
