"""Codecs between pictures and the space of a diffusion model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Codec(nn.Module, ABC):
    """Pictures (B, 3, H, W) in [-1, 1] to samples of the model's space and back, both differentiable."""

    channels: int
    """Number of channels in the model's space."""

    pixels = 1
    """Pixels per latent along each side."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Pictures to the model's space, (B, C, h, w)."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Samples of the model's space to pictures."""


class PixelCodec(Codec):
    """The identity, for models in pixel space."""

    channels = 3

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x: Tensor) -> Tensor:
        return x


class LatentCodec(Codec):
    """A variational autoencoder's latents, shifted and scaled to about unit variance:

        z = (mu(x) - shift) scale,    x = decoder(z / scale + shift)

    mu is the posterior's mean: a sample of the posterior would only add variance to the gradient at the picture, and
    its standard deviation is small compared with the noise at any t.

    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.

    Args:
        vae: an AutoencoderKL.
        offload: keep the decoder, which distillation rarely needs, on the CPU between calls. Decoded pictures then have
            no graph, because the weights are back on the CPU before the backward pass.

    Raises:
        ValueError: if the latents have three channels, like pictures, or one scale per channel.
    """

    def __init__(self, vae: nn.Module, offload: bool = False) -> None:
        super().__init__()
        config: Any = vae.config
        self.vae: Any = vae
        self.channels = int(config.latent_channels)
        if self.channels == 3 or config.get("latents_mean") is not None:
            raise ValueError("model: the autoencoder must have more than 3 latent channels, and one scale for all")
        self.pixels = 2 ** (len(config.block_out_channels) - 1)
        self.scale = float(config.scaling_factor)
        self.shift = float(config.get("shift_factor") or 0.0)
        self._idle: dict[str, Any] = {}  # a plain dict, so that moving the codec does not move these modules
        if offload:
            self._idle = {name: getattr(vae, name) for name in ("decoder", "post_quant_conv")}
            self._put(dict.fromkeys(self._idle))

    def encode(self, x: Tensor) -> Tensor:
        mean = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mean.to(x.dtype)
        return (mean - self.shift) * self.scale

    def decode(self, x: Tensor) -> Tensor:
        z = (x / self.scale + self.shift).to(self.vae.dtype)
        if not self._idle:
            return self.vae.decode(z, return_dict=False)[0].to(x.dtype)
        with torch.no_grad(), self._decoder_on(z):
            return self.vae.decode(z, return_dict=False)[0].to(x.dtype)

    @contextmanager
    def _decoder_on(self, like: Tensor) -> Iterator[None]:
        """Move the decoder to a tensor's device and dtype inside the `with` block."""
        self._put({name: module and module.to(like.device, like.dtype) for name, module in self._idle.items()})
        try:
            yield
        finally:
            self._put(dict.fromkeys(self._idle))
            for module in filter(None, self._idle.values()):
                module.to("cpu")

    def _put(self, modules: dict[str, Any]) -> None:
        for name, module in modules.items():
            setattr(self.vae, name, module)
