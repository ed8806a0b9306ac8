"""The transformer of PixArt-α and PixArt-Σ."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.ranges import require
from scoredistill.types import Condition


class PixArtBackbone(DiffusersBackbone):
    """A PixArtTransformer2DModel, which is told which tokens count and, if it was trained at 1024 pixels as PixArt-α,
    the picture's size and aspect ratio. The variance that it predicts too is left out.

    PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis, 2023, arXiv:2310.00426.

    Args:
        network: the model of diffusers.
        schedule: the discrete schedule that it was trained with.
        scale: pixels to a latent's side, >= 1.
    """

    def __init__(self, network: nn.Module, schedule: Schedule | None = None, scale: int = 8) -> None:
        require(">= 1", scale=scale)
        super().__init__(network, time="discrete", schedule=schedule)
        self.scale = scale
        self.sized = bool(getattr(network, "use_additional_conditions", False))
        self.settings = {"scale": scale}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        inputs, mask = super().inputs(x, log_snr, condition), self.text(condition).mask
        inputs["encoder_attention_mask"] = None if mask is None else mask.to(x.device)
        height, width = self.scale * x.shape[-2], self.scale * x.shape[-1]
        size = x.new_tensor([height, width]).expand(len(x), -1) if self.sized else None
        ratio = x.new_full((len(x), 1), height / width) if self.sized else None
        return inputs | {"added_cond_kwargs": {"resolution": size, "aspect_ratio": ratio}}
