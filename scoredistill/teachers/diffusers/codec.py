"""Between pictures and the space where a diffusion model lives."""

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
    """Of the model's space."""

    pixels = 1
    """Of a picture's side to one of the model's space."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Pictures to the model's space, (B, C, h, w)."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Back to pictures."""


class PixelCodec(Codec):
    """A model that lives among pixels: pictures stay as they are."""

    channels = 3

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x: Tensor) -> Tensor:
        return x


class LatentCodec(Codec):
    """A variational autoencoder's latents, shifted and scaled to about unit variance:

        z = (mu(x) - shift) scale,    x = decoder(z / scale + shift)

    mu is the posterior's mean: a draw from the posterior would only add variance to the gradient that reaches the
    picture, and its standard deviation is small beside the noise of any t.

    High-Resolution Image Synthesis with Latent Diffusion Models, 2021, arXiv:2112.10752.

    Args:
        vae: an AutoencoderKL.
        offload: keep the decoder, which distillation hardly needs, on the CPU until it is asked; what it decodes has no
            graph then, since its weights are gone by the time of a backward pass.

    Raises:
        ValueError: if its latents have three channels, which could not be told from pictures, or a scale for each.
    """

    def __init__(self, vae: nn.Module, offload: bool = False) -> None:
        super().__init__()
        config: Any = vae.config
        self.vae: Any = vae
        self.channels = int(config.latent_channels)
        if self.channels == 3 or config.get("latents_mean") is not None:
            raise ValueError("model: known are autoencoders of more than 3 latent channels, with one scale for all")
        self.pixels = 2 ** (len(config.block_out_channels) - 1)
        self.scale, self.shift = float(config.scaling_factor), float(config.get("shift_factor") or 0.0)
        self._idle: dict[str, Any] = {}  # a plain dict: moving the codec does not move what is in it
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
        with torch.no_grad(), self._awake(z):
            return self.vae.decode(z, return_dict=False)[0].to(x.dtype)

    @contextmanager
    def _awake(self, like: Tensor) -> Iterator[None]:
        """The idle decoder in its place, on a tensor's device and in its type, inside the `with` block."""
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
