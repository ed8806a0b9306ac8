"""Networks of text-to-image pipelines as backbones: FLUX, SD3, SDXL, PixArt, multi-view UNets."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.ranges import require
from scoredistill.types import Condition


class FluxBackbone(DiffusersBackbone):
    """A FluxTransformer2DModel, whose input is a sequence of 2 x 2 patches with their positions.

    Guidance-distilled variants (FLUX.1 dev) are also conditioned on the guidance scale that they imitate.

    FLUX.1 (2024), Black Forest Labs; "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024),
    arXiv:2403.03206.

    Args:
        network: the model of diffusers.
        guidance: guidance scale of a guidance-distilled variant, > 0; None: 1, no guidance by the network.

    Raises:
        ValueError: if a scale is set for a variant without guidance embedding.
    """

    def __init__(self, network: nn.Module, guidance: float | None = None) -> None:
        require("> 0", guidance=guidance)
        super().__init__(network, time="flow")
        config: Any = network.config
        self.distilled = bool(config.guidance_embeds)
        if guidance is not None and not self.distilled:
            raise ValueError("guidance_embedding: this FLUX is not guidance-distilled: set null")
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
        raise ValueError(f"FLUX needs patches of 2 x 2 latents: H and W must be even, got {tuple(x.shape[-2:])}")
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(patches: Tensor, rows: int) -> Tensor:
    """The latents (B, C, H, W) of a sequence of patches in `rows` = H / 2 rows."""
    return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=2, q=2)


def positions(rows: int, columns: int) -> Tensor:
    """(rows columns, 3): 0, row and column of each patch."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], -1).flatten(0, 1)


class SD3Backbone(DiffusersBackbone):
    """An SD3Transformer2DModel, conditioned on tokens, pooled text embeddings and the time 1000 sigma.

    "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024), arXiv:2403.03206.

    Args:
        network: the model of diffusers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, time="flow")
        self.settings = {}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        return super().inputs(x, log_snr, condition) | {"pooled_projections": self.pooled(condition).to(x)}


class SDXLBackbone(DiffusersBackbone):
    """A UNet2DConditionModel that is also conditioned on pooled text embeddings and the picture's size in pixels:

        original height, width, crop's top, left, target height, width = 8h, 8w, 0, 0, 8h, 8w

    "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis" (2023), arXiv:2307.01952.

    Args:
        network: the model of diffusers.
        schedule: the discrete schedule that the network was trained with; None: Stable Diffusion's.
        scale: pixels per latent along each side, >= 1.
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


class PixArtBackbone(DiffusersBackbone):
    """A PixArtTransformer2DModel, which is also conditioned on the tokens' mask and, in PixArt-α at 1024 pixels, on the
    picture's size and aspect ratio. The variance that it predicts is not used.

    "PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis" (2023),
    arXiv:2310.00426.

    Args:
        network: the model of diffusers.
        schedule: the discrete schedule that the network was trained with; None: Stable Diffusion's.
        scale: pixels per latent along each side, >= 1.
    """

    def __init__(self, network: nn.Module, schedule: Schedule | None = None, scale: int = 8) -> None:
        require(">= 1", scale=scale)
        super().__init__(network, time="discrete", schedule=schedule)
        self.scale = scale
        self.sized = bool(getattr(network, "use_additional_conditions", False))
        self.settings = {"scale": scale}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        inputs = super().inputs(x, log_snr, condition)
        mask = self.text(condition).mask
        inputs["encoder_attention_mask"] = None if mask is None else mask.to(x.device)
        height, width = self.scale * x.shape[-2], self.scale * x.shape[-1]
        size = x.new_tensor([height, width]).expand(len(x), -1) if self.sized else None
        ratio = x.new_full((len(x), 1), height / width) if self.sized else None
        return inputs | {"added_cond_kwargs": {"resolution": size, "aspect_ratio": ratio}}


class MultiViewBackbone(DiffusersBackbone):
    """A UNet2DConditionModel whose class embedding projects the flattened 4 x 4 pose of each row's camera.

    The pose is that of `Camera`: camera to world, row by row, y up.

    "MVDream: Multi-view Diffusion for 3D Generation" (2023), arXiv:2308.16512.

    Args:
        network: the model of diffusers, with class_embed_type "projection" or "simple_projection" and 16 inputs.
        schedule: the discrete schedule that the network was trained with; None: Stable Diffusion's.

    Raises:
        ValueError: if its projection does not have 16 inputs.
    """

    def __init__(self, network: nn.Module, schedule: Schedule | None = None) -> None:
        super().__init__(network, time="discrete", schedule=schedule)
        config: Any = network.config
        numbers = config.projection_class_embeddings_input_dim
        if numbers != 16:
            raise ValueError(f"the UNet's class embedding has {numbers} inputs, but a camera's 4 x 4 pose has 16")
        self.settings = {}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        if condition is None or condition.camera is None:
            raise ValueError("the network is conditioned on cameras, but the condition has no camera")
        return super().inputs(x, log_snr, condition) | {"class_labels": condition.camera.pose.flatten(1).to(x)}
