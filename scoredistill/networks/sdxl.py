"""The UNet of Stable Diffusion XL."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.ranges import require
from scoredistill.types import Condition


class SDXLBackbone(DiffusersBackbone):
    """A UNet2DConditionModel that is also told the prompt's pooled embedding and the picture's size in pixels:

        original height, width, crop's top, left, target height, width = 8h, 8w, 0, 0, 8h, 8w

    SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, 2023, arXiv:2307.01952.

    Args:
        network: the model of diffusers.
        schedule: the discrete schedule that it was trained with.
        scale: pixels to a latent's side, >= 1.
    """

    def __init__(self, network: nn.Module, schedule: Schedule | None = None, scale: int = 8) -> None:
        require(">= 1", scale=scale)
        super().__init__(network, time="discrete", schedule=schedule)
        self.scale = scale
        self.settings = {"scale": scale}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        height, width = self.scale * x.shape[-2], self.scale * x.shape[-1]
        size = x.new_tensor([height, width, 0, 0, height, width]).expand(len(x), -1)
        added = {"text_embeds": self.pooled(condition).to(x), "time_ids": size}
        return super().inputs(x, log_snr, condition) | {"added_cond_kwargs": added}
