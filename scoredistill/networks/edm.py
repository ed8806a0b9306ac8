"""EDM's U-Nets, with the names and shapes of the published weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from scoredistill.networks.published import load_published
from scoredistill.networks.unet import (
    Resample,
    ResampledConv,
    Resampling,
    Stage,
    StagedUNet,
    one_hot_labels,
    unet_stages,
)
from scoredistill.ranges import require
from scoredistill.types import Condition

Architecture = Literal["ddpm++", "adm"]


@dataclass(frozen=True)
class _Kind:
    """Differences between the blocks of the two architectures."""

    eps: float
    scale: float  # factor of each residual sum
    adaptive: bool  # whether the embedding scales in addition to shifting
    projected: bool  # whether the shortcut of a resampling block has a convolution
    head: int | None  # channels of an attention head; None: one head


KINDS: dict[Architecture, _Kind] = {
    "ddpm++": _Kind(1e-6, math.sqrt(0.5), adaptive=False, projected=True, head=None),
    "adm": _Kind(1e-5, 1.0, adaptive=True, projected=False, head=64),
}


def _conv(inputs: int, outputs: int, kernel: int, resampling: Resampling = "keep") -> nn.Module:
    if resampling == "keep":
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return ResampledConv(inputs, outputs, kernel, resampling)


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps)


class _Block(nn.Module):
    """A residual block with the noise level's embedding, followed by self-attention in some stages."""

    def __init__(self, stage: Stage, embedding: int, kind: _Kind, dropout: float) -> None:
        super().__init__()
        inputs, outputs = stage.inputs, stage.outputs
        self.kind = kind
        self.dropout = dropout
        self.norm0 = _norm(inputs, kind.eps)
        self.conv0 = _conv(inputs, outputs, 3, stage.resampling)
        self.affine = nn.Linear(embedding, 2 * outputs if kind.adaptive else outputs)
        self.norm1 = _norm(outputs, kind.eps)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip: nn.Module | None = None
        if inputs != outputs or (stage.resampling != "keep" and kind.projected):
            self.skip = _conv(inputs, outputs, 1, stage.resampling)
        elif stage.resampling != "keep":
            self.skip = Resample(stage.resampling)
        self.heads = 0
        if stage.attention:
            self.heads = 1 if kind.head is None else max(1, outputs // kind.head)
            self.norm2 = _norm(outputs, kind.eps)
            self.qkv = nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        update = self.conv0(functional.silu(self.norm0(x)))
        affine = self.affine(embedding)[:, :, None, None]
        if self.kind.adaptive:
            scale, shift = affine.chunk(2, dim=1)
            update = shift + self.norm1(update) * (1 + scale)
        else:
            update = self.norm1(update + affine)
        update = functional.dropout(functional.silu(update), self.dropout, self.training)
        x = self.kind.scale * ((x if self.skip is None else self.skip(x)) + self.conv1(update))
        return self.kind.scale * (x + self._attended(x)) if self.heads else x

    def _attended(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm2(x)), "b (h c k) y x -> k b h (y x) c", h=self.heads, k=3)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(mixed, "b h (y x) c -> b (h c) y x", y=x.shape[2]))


class EDMUNet(StagedUNet):
    """The U-Nets of EDM, F of its preconditioning: Denoiser(EDMUNet(...), "edm", sigma_data=0.5).

    The noise level enters as c_noise = log(sigma / alpha) / 4, the class as a one-hot row, or zeros without a class.
    Parameters and buffers have the names and shapes of the published tensors under `model.`:

        ddpm++      CIFAR-10, FFHQ and AFHQ (the "vp" files)
        adm         ImageNet at 64 x 64

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        architecture: ddpm++ or adm.
        resolution: H = W, >= 1.
        in_channels: channels of the input and of the output, >= 1.
        channels: base number of channels, >= 1.
        multipliers: factor of `channels` at each resolution, finest first, >= 1.
        blocks: residual blocks at each resolution of the encoder, >= 1.
        attention: resolutions with self-attention, >= 1.
        classes: number of class labels, >= 1; None: labels are ignored.
        augmentations: inputs of `map_augment`, a layer of the published CIFAR-10 weights (9) that is only used in
            training with augmentation, >= 0. It is not used here; 0: leave it out.
        dropout: dropout probability in the blocks, in [0, 1).
        label_dropout: probability of dropping a label in training, in [0, 1].
        weights: file of published weights (.pkl as published, .safetensors or a torch file); None: random weights.

    Raises:
        ValueError: if the architecture is unknown, the resolution cannot be halved often enough, or weights do not fit.
    """

    def __init__(
        self,
        architecture: Architecture,
        resolution: int,
        in_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        classes: int | None = None,
        augmentations: int = 0,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
        weights: str | None = None,
    ) -> None:
        require(
            ">= 1",
            resolution=resolution,
            in_channels=in_channels,
            channels=channels,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            classes=classes,
        )
        require(">= 0", augmentations=augmentations)
        require("[0, 1)", dropout=dropout)
        require("[0, 1]", label_dropout=label_dropout)
        super().__init__()
        if architecture not in KINDS:
            raise ValueError(f"unknown architecture {architecture!r}; choose {', '.join(get_args(Architecture))}")
        self.simple = architecture == "ddpm++"
        self.classes = classes
        self.label_dropout = label_dropout
        self.settings: dict[str, Any] = {"architecture": architecture, "resolution": resolution}
        self.settings |= {"in_channels": in_channels, "channels": channels, "multipliers": tuple(multipliers)}
        self.settings |= {"blocks": blocks, "attention": tuple(attention), "classes": classes}
        self.settings |= {"augmentations": augmentations, "dropout": dropout, "label_dropout": label_dropout}
        widths = [channels * multiplier for multiplier in multipliers]
        stem = Stage(f"{resolution}x{resolution}_conv", in_channels, channels if self.simple else widths[0])
        encoder, decoder = unet_stages(resolution, stem, widths, blocks, attention, last_only=self.simple)
        self._add_embedding(channels, augmentations)
        self._add_stages(encoder, decoder, KINDS[architecture], 4 * channels, dropout)
        self._initialize()
        if weights is not None:
            load_published(self, weights)

    @classmethod
    def cifar10(cls, classes: int | None = 10, weights: str | None = None) -> EDMUNet:
        """The DDPM++ of CIFAR-10, 55.7 million parameters.

        Args:
            classes: 10, or None for the unconditional model.
            weights: file of published weights, for example edm-cifar10-32x32-cond-vp.pkl.

        Raises:
            ValueError: if the weights do not fit.
        """
        return cls("ddpm++", 32, classes=classes, weights=weights)

    @classmethod
    def imagenet64(cls, weights: str | None = None) -> EDMUNet:
        """The ADM of ImageNet at 64 x 64, 295.9 million parameters.

        Args:
            weights: file of published weights, for example edm-imagenet-64x64-cond-adm.pkl.

        Raises:
            ValueError: if the weights do not fit.
        """
        multipliers = (1, 2, 3, 4)
        attention = (32, 16, 8)
        return cls("adm", 64, 3, 192, multipliers, blocks=3, attention=attention, classes=1000, weights=weights)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        embedding = self._embedding(x, log_snr, condition)
        skips = []
        for name, stage in self.enc.items():
            x = stage(x) if name.endswith("_conv") else stage(x, embedding)
            skips.append(x)
        for name, stage in self.dec.items():
            if "_aux_" not in name:
                x = stage(torch.cat([x, skips.pop()], 1) if "_block" in name else x, embedding)
        norm, conv = (self.get_submodule(name) for name in self.head)
        return conv(functional.silu(norm(x)))

    def _embedding(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        half = self.map_layer0.in_features // 2
        steps = torch.arange(half, dtype=log_snr.dtype, device=log_snr.device) / (half - 1 if self.simple else half)
        phase = -log_snr[:, None] / 8 * 10000**-steps
        waves = [phase.sin(), phase.cos()] if self.simple else [phase.cos(), phase.sin()]
        embedding = torch.cat(waves, 1).to(x.dtype)
        label: Tensor | float = 0.0
        if self.classes:
            rows = one_hot_labels(condition, x, self.classes, self.label_dropout if self.training else 0.0)
            label = self.map_label(rows * math.sqrt(self.classes) if self.simple else rows)
        if self.simple:
            hidden = functional.silu(self.map_layer0(embedding + label))
            return functional.silu(self.map_layer1(hidden))
        hidden = functional.silu(self.map_layer0(embedding))
        return functional.silu(self.map_layer1(hidden) + label)

    def _add_embedding(self, channels: int, augmentations: int) -> None:
        self.map_layer0 = nn.Linear(channels, 4 * channels)
        self.map_layer1 = nn.Linear(4 * channels, 4 * channels)
        if self.classes:
            self.map_label = nn.Linear(self.classes, channels if self.simple else 4 * channels, bias=self.simple)
        if augmentations:
            self.map_augment = nn.Linear(augmentations, channels, bias=False).requires_grad_(False)

    def _add_stages(self, encoder: list[Stage], decoder: list[Stage], kind: _Kind, embedding: int, p: float) -> None:
        stem = encoder[0]
        self.encoder = encoder
        self.enc = nn.ModuleDict({stem.name: _conv(stem.inputs, stem.outputs, 3)})
        self.enc.update({stage.name: _Block(stage, embedding, kind, p) for stage in encoder[1:]})
        self.dec = nn.ModuleDict({stage.name: _Block(stage, embedding, kind, p) for stage in decoder})
        size = stem.name.removesuffix("_conv")
        last = decoder[-1].outputs
        self.head = (f"dec.{size}_aux_norm", f"dec.{size}_aux_conv") if self.simple else ("out_norm", "out_conv")
        for name, module in zip(self.head, (_norm(last, kind.eps), _conv(last, stem.inputs, 3)), strict=True):
            self.set_submodule(name, module)

    def _initialize(self) -> None:
        """Initialize as published: the last layers of residual branches and of the network are zero or almost zero."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d | ResampledConv):
                continue
            last = name.endswith(("conv1", "proj", *self.head))
            if self.simple:
                nn.init.xavier_uniform_(module.weight, 1e-5 if last else math.sqrt(0.2) if name.endswith("qkv") else 1)
            elif last:
                nn.init.zeros_(module.weight)
            elif name == "map_label":
                nn.init.normal_(module.weight)
            if module.bias is not None and (last or self.simple):
                nn.init.zeros_(module.bias)
