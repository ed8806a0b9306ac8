"""Families of pipelines: each one's network and text encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.text_backbones import (
    FluxBackbone,
    MultiViewBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
)
from scoredistill.teachers.diffusers.encoder import Reads
from scoredistill.types import TextEmbeddings


@dataclass(frozen=True)
class Setting:
    """Settings of a backbone.

    Args:
        schedule: noise schedule.
        pixels: pixels per latent along each side.
        guidance: guidance scale that conditions a guidance-distilled network, or None.
    """

    schedule: Schedule
    pixels: int
    guidance: float | None


@dataclass(frozen=True)
class Family:
    """Properties of a class of pipelines.

    Args:
        network: name of the denoising part.
        backbone: builds a backbone from that part.
        reads: calls the pipeline's `encode_prompt`.
        side: side of the network's samples, if its config does not contain it.
    """

    network: str
    backbone: Callable[[nn.Module, Setting], DiffusersBackbone]
    reads: Reads
    side: int | None = None


def _unet(network: nn.Module, setting: Setting) -> DiffusersBackbone:
    """The backbone of a UNet, with cameras if the UNet projects its class labels into the time embedding."""
    config: Any = network.config
    if config.get("class_embed_type") in ("projection", "simple_projection"):
        return MultiViewBackbone(network, setting.schedule)
    return DiffusersBackbone(network, time="discrete", schedule=setting.schedule)


def _reads_tokens(pipeline: Any, texts: list[str], device: torch.device) -> TextEmbeddings:
    tokens, _ = pipeline.encode_prompt(texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    return TextEmbeddings(tokens)


def _reads_tokens_and_pooled(pipeline: Any, texts: list[str], device: torch.device) -> TextEmbeddings:
    tokens, _, pooled, _ = pipeline.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
    return TextEmbeddings(tokens, pooled)


def _reads_three(pipeline: Any, texts: list[str], device: torch.device) -> TextEmbeddings:
    tokens, _, pooled, _ = pipeline.encode_prompt(texts, None, None, device=device, do_classifier_free_guidance=False)
    return TextEmbeddings(tokens, pooled)


def _reads_flux(pipeline: Any, texts: list[str], device: torch.device) -> TextEmbeddings:
    tokens, pooled, _ = pipeline.encode_prompt(texts, device=device)
    return TextEmbeddings(tokens, pooled)


def _reads_masked(pipeline: Any, texts: list[str], device: torch.device) -> TextEmbeddings:
    tokens, mask, _, _ = pipeline.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
    return TextEmbeddings(tokens, mask=mask)


_PIXART = Family("transformer", lambda net, s: PixArtBackbone(net, s.schedule, s.pixels), _reads_masked)

FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family("unet", _unet, _reads_tokens),
    "StableDiffusionXLPipeline": Family(
        "unet", lambda net, s: SDXLBackbone(net, s.schedule, s.pixels), _reads_tokens_and_pooled
    ),
    "StableDiffusion3Pipeline": Family("transformer", lambda net, s: SD3Backbone(net), _reads_three),
    "FluxPipeline": Family("transformer", lambda net, s: FluxBackbone(net, s.guidance), _reads_flux, side=128),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "IFPipeline": Family("unet", _unet, _reads_tokens),
}
