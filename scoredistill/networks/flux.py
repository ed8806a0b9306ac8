"""The transformer of FLUX.1."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.ranges import require
from scoredistill.types import Condition


class FluxBackbone(DiffusersBackbone):
    """A FluxTransformer2DModel, which sees a picture as a sequence of 2 x 2 patches with their positions.

    The variants that were distilled from guided samples (FLUX.1 dev) are also told the guidance scale that they are to
    imitate; the others are not.

    FLUX.1, 2024, Black Forest Labs; Scaling Rectified Flow Transformers, 2024, arXiv:2403.03206.

    Args:
        network: the model of diffusers.
        guidance: the scale that a guidance-distilled variant imitates, > 0; null: 1, which leaves guidance to us.

    Raises:
        ValueError: if a scale is given to a variant that is told none.
    """

    def __init__(self, network: nn.Module, guidance: float | None = None) -> None:
        require("> 0", guidance=guidance)
        super().__init__(network, time="flow")
        config: Any = network.config
        self.distilled = bool(config.guidance_embeds)
        if guidance is not None and not self.distilled:
            raise ValueError("guidance_embedding: this FLUX is not guidance-distilled: leave it null")
        self.guidance = 1.0 if guidance is None else guidance
        self.settings = {"guidance": guidance}

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        patches = pack(x.to(self.dtype))
        output = self.network(patches, **self.inputs(x.to(self.dtype), log_snr, condition), return_dict=False)[0]
        return unpack(output, x.shape[-2] // 2)

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        inputs = super().inputs(x, log_snr, condition)
        inputs["timestep"] = inputs["timestep"] / 1000
        inputs["pooled_projections"] = self.pooled(condition).to(x)
        inputs["img_ids"] = positions(x.shape[-2] // 2, x.shape[-1] // 2).to(x)
        inputs["txt_ids"] = x.new_zeros(inputs["encoder_hidden_states"].shape[1], 3)
        inputs["guidance"] = x.new_full((len(x),), self.guidance) if self.distilled else None
        return inputs


def pack(x: Tensor) -> Tensor:
    """Latents (B, C, H, W) as a sequence of patches, (B, H W / 4, 4 C).

    Raises:
        ValueError: if a side is odd.
    """
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"FLUX sees patches of 2 x 2 latents: H and W must be even, got {tuple(x.shape[-2:])}")
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(patches: Tensor, rows: int) -> Tensor:
    """The latents (B, C, H, W) of a sequence of patches, of which `rows` = H / 2 lie below each other."""
    return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=2, q=2)


def positions(rows: int, columns: int) -> Tensor:
    """(rows columns, 3): 0, row and column of each patch."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], -1).flatten(0, 1)
