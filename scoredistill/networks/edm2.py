"""EDM2's magnitude-preserving U-Net, with the names and shapes of the published weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from scoredistill.networks.published import load_published
from scoredistill.networks.unet import Resampling, Stage, StagedUNet, one_hot_labels, unet_stages
from scoredistill.ranges import require
from scoredistill.types import Condition

RESIDUAL_BALANCE = 0.3
ATTENTION_BALANCE = 0.3
LABEL_BALANCE = 0.5
SKIP_BALANCE = 0.5
HEAD_CHANNELS = 64
LARGEST_ACTIVATION = 256.0


def normalized(x: Tensor, dims: Sequence[int]) -> Tensor:
    """x / (eps + rms(x)) over some dimensions, with eps = 1e-4: each slice gets magnitude 1 (equation 47).

    "Analyzing and Improving the Training Dynamics of Diffusion Models" (2023), arXiv:2312.02696.

    Args:
        x: any shape.
        dims: dimensions of the root mean square.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=list(dims), keepdim=True, dtype=precision)
    rms = norm * math.sqrt(norm.numel() / x.numel())
    return x / (rms + 1e-4).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596, of magnitude 1 for x ~ N(0, 1) (equation 81 of arXiv:2312.02696).

    Args:
        x: any shape.
    """
    return functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), of magnitude 1 if a and b have magnitude 1 and are uncorrelated
    (equation 88 of arXiv:2312.02696).

    Args:
        a: any shape.
        b: the same shape.
        t: share of b, in [0, 1].
    """
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of a and b, scaled so that b's share is t for any number of channels, and the result has magnitude 1
    (equation 103 of arXiv:2312.02696).

    Args:
        a: (B, C_a, H, W).
        b: (B, C_b, H, W).
        t: share of b, in [0, 1].
    """
    scale = math.sqrt(a.shape[1] + b.shape[1]) / math.hypot(1 - t, t)
    return torch.cat([a * (scale * (1 - t) / math.sqrt(a.shape[1])), b * (scale * t / math.sqrt(b.shape[1]))], 1)


class _Weights(nn.Module):
    """A linear layer (kernel 0) or convolution without bias, whose rows always have norm 1.

    In training, the stored weights are also normalized to magnitude 1, so that their growth does not slow down learning
    (forced weight normalization, section 2.3).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(kernel, kernel) if kernel else ()))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = range(1, self.weight.ndim)
        if self.training and self.weight.requires_grad:
            # Through .data, because a previous forward pass in the same graph still needs the weights for its backward
            # pass. A second normalization does not change them.
            self.weight.data.copy_(normalized(self.weight.detach(), dims))
        weight = normalized(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        return functional.conv2d(x, weight, padding=self.kernel // 2) if self.kernel else x @ weight.T


class _Fourier(nn.Module):
    """sqrt(2) cos(2 pi (frequency c_noise + phase)) with fixed random frequencies and phases."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, c_noise: Tensor) -> Tensor:
        return math.sqrt(2) * (c_noise[:, None] * self.freqs + self.phases).cos()


class _Block(nn.Module):
    """A residual block of the encoder, which first normalizes each pixel, or of the decoder, which does not."""

    def __init__(self, stage: Stage, embedding: int, decodes: bool, dropout: float) -> None:
        super().__init__()
        inputs, outputs = stage.inputs, stage.outputs
        self.resampling: Resampling = stage.resampling
        self.decodes = decodes
        self.dropout = dropout
        self.emb_gain = nn.Parameter(torch.zeros(()))
        self.conv_res0 = _Weights(inputs if decodes else outputs, outputs, 3)
        self.emb_linear = _Weights(embedding, outputs)
        self.conv_res1 = _Weights(outputs, outputs, 3)
        self.conv_skip = _Weights(inputs, outputs, 1) if inputs != outputs else None
        self.heads = max(1, outputs // HEAD_CHANNELS) if stage.attention else 0
        if self.heads:
            self.attn_qkv = _Weights(outputs, 3 * outputs, 1)
            self.attn_proj = _Weights(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resampling == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resampling == "up":
            x = functional.interpolate(x, scale_factor=2)
        if not self.decodes:
            x = normalized(x if self.conv_skip is None else self.conv_skip(x), [1])
        update = self.conv_res0(mp_silu(x))
        scale = 1 + self.emb_linear(embedding, self.emb_gain)
        update = functional.dropout(mp_silu(update * scale[:, :, None, None]), self.dropout, self.training)
        if self.decodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, self.conv_res1(update), RESIDUAL_BALANCE)
        if self.heads:
            x = mp_sum(x, self._attended(x), ATTENTION_BALANCE)
        return x.clamp(-LARGEST_ACTIVATION, LARGEST_ACTIVATION)

    def _attended(self, x: Tensor) -> Tensor:
        parts = rearrange(self.attn_qkv(x), "b (h c k) y x -> k b h (y x) c", h=self.heads, k=3)
        q, k, v = normalized(parts, [-1])
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.attn_proj(rearrange(mixed, "b h (y x) c -> b (h c) y x", y=x.shape[2]))


class EDM2UNet(StagedUNet):
    """The magnitude-preserving U-Net of EDM2, F of EDM's preconditioning: Denoiser(EDM2UNet(...), "edm", 0.5).

    Weights, activations and sums have magnitude 1 by construction, so there are no normalization layers and no biases;
    a constant channel is appended to the input instead. The noise level enters as c_noise = log(sigma / alpha) / 4, the
    class as a one-hot row, or zeros without a class. Parameters and buffers have the names and shapes of the published
    tensors under `unet.`; those of the uncertainty (logvar) are not used. The published sizes have 128 (XS), 192 (S),
    256 (M), 320 (L), 384 (XL) and 448 (XXL) channels, for ImageNet's latents (4 x 64 x 64) or images (3 x 64 x 64).

    "Analyzing and Improving the Training Dynamics of Diffusion Models" (2023), arXiv:2312.02696.

    Args:
        resolution: H = W, >= 1.
        in_channels: channels of the input and of the output, >= 1.
        channels: base number of channels, >= 1; attention heads have 64 channels each.
        multipliers: factor of `channels` at each resolution, finest first, >= 1.
        blocks: residual blocks at each resolution of the encoder, >= 1.
        attention: resolutions with self-attention, >= 1.
        classes: number of class labels, >= 1; None: labels are ignored.
        dropout: dropout probability in the blocks, in [0, 1).
        label_dropout: probability of dropping a label in training, in [0, 1].
        weights: file of published weights (.pkl as published, .safetensors or a torch file); None: random weights.

    Raises:
        ValueError: if the resolution cannot be halved often enough, or the weights do not fit.
    """

    shardable = False  # the forward pass normalizes the weights in training

    def __init__(
        self,
        resolution: int = 64,
        in_channels: int = 4,
        channels: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (16, 8),
        classes: int | None = 1000,
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
        require("[0, 1)", dropout=dropout)
        require("[0, 1]", label_dropout=label_dropout)
        super().__init__()
        self.classes = classes
        self.label_dropout = label_dropout
        self.settings: dict[str, Any] = {"resolution": resolution, "in_channels": in_channels, "channels": channels}
        self.settings |= {"multipliers": tuple(multipliers), "blocks": blocks, "attention": tuple(attention)}
        self.settings |= {"classes": classes, "dropout": dropout, "label_dropout": label_dropout}
        widths = [channels * multiplier for multiplier in multipliers]
        stem = Stage(f"{resolution}x{resolution}_conv", in_channels + 1, widths[0])
        encoder, decoder = unet_stages(resolution, stem, widths, blocks, attention)
        self.emb_fourier = _Fourier(widths[0])
        self.emb_noise = _Weights(widths[0], max(widths))
        self.emb_label = _Weights(classes, max(widths)) if classes else None
        self.enc = nn.ModuleDict({stem.name: _Weights(stem.inputs, stem.outputs, 3)})
        self.enc.update({stage.name: _Block(stage, max(widths), False, dropout) for stage in encoder[1:]})
        self.dec = nn.ModuleDict({stage.name: _Block(stage, max(widths), True, dropout) for stage in decoder})
        self.out_conv = _Weights(widths[0], in_channels, 3)
        self.out_gain = nn.Parameter(torch.zeros(()))
        self.encoder = encoder
        if weights is not None:
            load_published(self, weights)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        embedding = self._embedding(x, log_snr, condition)
        skips = []
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        for name, stage in self.enc.items():
            x = stage(x) if name.endswith("_conv") else stage(x, embedding)
            skips.append(x)
        for name, stage in self.dec.items():
            x = stage(mp_cat(x, skips.pop(), SKIP_BALANCE) if "_block" in name else x, embedding)
        return self.out_conv(x, self.out_gain)

    def _embedding(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(-log_snr / 8).to(x.dtype))
        if self.emb_label is not None and self.classes:
            rows = one_hot_labels(condition, x, self.classes, self.label_dropout if self.training else 0.0)
            embedding = mp_sum(embedding, self.emb_label(rows * math.sqrt(self.classes)), LABEL_BALANCE)
        return mp_silu(embedding)
