"""Common parts of EDM's and EDM2's U-Nets: stages, resampling and class labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoredistill.networks.backbone import NO_LABEL, Backbone, FeatureLayer
from scoredistill.types import Condition

Resampling = Literal["keep", "down", "up"]


class Stage(NamedTuple):
    """One stage of a U-Net: its published name, channels, change of resolution, and whether it has attention."""

    name: str
    inputs: int
    outputs: int
    resampling: Resampling = "keep"
    attention: bool = False


def unet_stages(
    resolution: int, stem: Stage, widths: Sequence[int], blocks: int, attention: Sequence[int], last_only: bool = False
) -> tuple[list[Stage], list[Stage]]:
    """The stages of encoder and decoder. The decoder's blocks also take the encoder's outputs, last output first.

    Args:
        resolution: H = W of the input, divisible by 2 at each level.
        stem: the first convolution.
        widths: channels at each resolution, finest first.
        blocks: residual blocks at each resolution of the encoder, >= 1; the decoder has one more.
        attention: resolutions with self-attention.
        last_only: whether only the last block of each resolution of the decoder has attention.

    Raises:
        ValueError: if the resolution cannot be halved that often.
    """
    if resolution % 2 ** (len(widths) - 1):
        raise ValueError(f"resolution {resolution} cannot be halved {len(widths) - 1} times")
    encoder = [stem]
    decoder = []
    channels = stem.outputs
    for level, width in enumerate(widths):
        size = resolution >> level
        if level:
            encoder.append(Stage(f"{size}x{size}_down", channels, channels, "down"))
        for i in range(blocks):
            encoder.append(Stage(f"{size}x{size}_block{i}", channels, width, "keep", size in attention))
            channels = width
    skips = [stage.outputs for stage in encoder]
    for level, width in reversed(list(enumerate(widths))):
        size = resolution >> level
        if level == len(widths) - 1:
            decoder.append(Stage(f"{size}x{size}_in0", channels, channels, "keep", True))
            decoder.append(Stage(f"{size}x{size}_in1", channels, channels))
        else:
            decoder.append(Stage(f"{size}x{size}_up", channels, channels, "up"))
        for i in range(blocks + 1):
            attends = size in attention and (i == blocks or not last_only)
            decoder.append(Stage(f"{size}x{size}_block{i}", channels + skips.pop(), width, "keep", attends))
            channels = width
    return encoder, decoder


def one_hot_labels(condition: Condition | None, like: Tensor, classes: int, dropout: float) -> Tensor:
    """One-hot labels (B, classes); zeros for the unconditional model.

    Args:
        condition: B rows, or None; rows with the label `NO_LABEL` are unconditional.
        like: (B, ...) with the result's dtype and device.
        classes: number of class labels.
        dropout: probability of dropping a label, in [0, 1].
    """
    if condition is None or condition.label is None:
        return like.new_zeros(len(like), classes)
    label = condition.label.to(like.device)
    labeled = label != NO_LABEL
    rows = functional.one_hot(label.where(labeled, 0), classes).to(like) * labeled[:, None]
    return rows * (torch.rand(len(like), 1) >= dropout).to(like) if dropout > 0 else rows


class Resample(nn.Module):
    """Doubles or halves the resolution with a filter that is stored with the weights, initially the mean of 2 x 2.

    Args:
        resampling: down or up.
    """

    resample_filter: Tensor

    def __init__(self, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2) or (B, C, 2 H, 2 W)."""
        kernel = self.resample_filter.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        if self.resampling == "up":
            return functional.conv_transpose2d(x, 4 * kernel, stride=2, groups=x.shape[1])
        return functional.conv2d(x, kernel, stride=2, groups=x.shape[1])


class ResampledConv(Resample):
    """Resampling followed by a convolution, with the weights of both in the same module.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: size of the convolution, odd.
        resampling: down or up.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, resampling: Resampling) -> None:
        super().__init__(resampling)
        conv = nn.Conv2d(inputs, outputs, kernel)
        self.padding = kernel // 2
        self.weight = conv.weight
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ...) at the new resolution."""
        return functional.conv2d(super().forward(x), self.weight, self.bias, padding=self.padding)


class StagedUNet(Backbone):
    """A U-Net with named encoder stages, whose last one is the bottleneck. A subclass builds the stages."""

    enc: nn.ModuleDict
    encoder: Sequence[Stage]

    @property
    def deepest(self) -> Stage:
        """The encoder's last stage."""
        return self.encoder[-1]

    @property
    def bottleneck(self) -> nn.Module:
        return self.enc[self.deepest.name]

    @property
    def feature_layers(self) -> list[FeatureLayer]:
        """The encoder's last stage at each resolution, finest first."""
        following = [*self.encoder[1:], None]
        ends = [a for a, b in zip(self.encoder, following, strict=True) if b is None or b.resampling == "down"]
        return [FeatureLayer(self.enc[stage.name], stage.outputs, spatial=True) for stage in ends]

    @property
    def spatial(self) -> bool:
        return True

    @property
    def width(self) -> int:
        return self.deepest.outputs
