"""A pipeline taken apart into what a teacher needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.teachers.diffusers.codec import Codec, LatentCodec, PixelCodec
from scoredistill.teachers.diffusers.encoder import PipelineEncoder, TextEncoder
from scoredistill.teachers.diffusers.families import FAMILIES, Setting
from scoredistill.teachers.diffusers.loading import Source, quietly
from scoredistill.teachers.diffusers.schedules import prediction_of, schedule_of


@dataclass(frozen=True)
class Execution:
    """How the parts are run.

    Args:
        dtype: of weights and activations; an autoencoder that asks for float32 gets it.
        attention: backend of the network's attention; None: the library's choice.
        compile: compile the network.
        offload: keep the autoencoder's decoder and the text encoders on the CPU.
        checkpointing: compute activations again in the backward pass.
        slicing: encode and decode one picture at a time.
        tiling: encode and decode large pictures tile by tile.
    """

    dtype: torch.dtype
    attention: str | None = None
    compile: bool = False
    offload: bool = False
    checkpointing: bool = False
    slicing: bool = False
    tiling: bool = False


@dataclass(frozen=True)
class Parts:
    """What a pipeline is made of.

    Args:
        denoiser: the network with its parameterization.
        schedule: of the noise.
        codec: between pictures and the denoiser's space.
        encoder: of texts.
        side: pixels of the pictures that it was trained on, height and width.
        zeros: whether the unconditional model is asked with zeros in place of the empty text's embeddings.
    """

    denoiser: Denoiser
    schedule: Schedule
    codec: Codec
    encoder: TextEncoder
    side: tuple[int, int]
    zeros: bool


def take_apart(source: Source, execution: Execution, guidance: float | None = None) -> Parts:
    """The parts of a pipeline, without its text encoders, which are read when a text is.

    Args:
        source: where it is.
        execution: how its parts are run.
        guidance: the scale that a guidance-distilled network is told; None: 1, if it is one.

    Raises:
        ValueError: if the pipeline is missing or of a class that is not known, or a setting does not suit it.
    """
    if source.name not in FAMILIES:
        raise ValueError(f"model: {source.model} is a {source.name}; known are {', '.join(FAMILIES)}")
    family, scheduler = FAMILIES[source.name], source.read("scheduler")
    if guidance is not None and source.name != "FluxPipeline":
        raise ValueError(f"guidance_embedding: a {source.name} is told no guidance scale: leave it null")
    network, codec = _network(source, family.network, execution), _codec(source, execution)
    schedule, prediction = schedule_of(scheduler), prediction_of(scheduler)
    backbone = family.backbone(network, Setting(schedule, codec.pixels, guidance))
    denoiser = Denoiser(backbone, prediction, scale_input=prediction != "flow")
    # The text encoders' pipeline looks at a transformer's config, where there is no T5, but never at a UNet's.
    others: dict[str, object] = {"transformer": network} if family.network == "transformer" else {}
    half_on_cpu = execution.offload and execution.dtype == torch.float16
    encoder = PipelineEncoder(
        source,
        family.reads,
        torch.float32 if half_on_cpu else execution.dtype,
        lambda: torch.device("cpu") if execution.offload else next(network.parameters()).device,
        others,
    )
    zeros = bool(source.index.get("force_zeros_for_empty_prompt", False))
    return Parts(denoiser, schedule, codec, encoder, _side(network, family.side, codec.pixels), zeros)


def _network(source: Source, part: str, execution: Execution) -> nn.Module:
    network = source.read(part, execution.dtype).requires_grad_(False)
    if execution.attention is not None:
        _choose_attention(network, execution.attention)
    if execution.checkpointing:
        network.enable_gradient_checkpointing()
    if execution.compile:
        network.compile()
    return network


def _choose_attention(network: Any, backend: str) -> None:
    """Raises ValueError if the network or this machine does not offer it."""
    if not any(hasattr(each, "_attention_backend") for each in network.attn_processors.values()):
        raise ValueError(f"attention: a {type(network).__name__} of diffusers offers no choice: leave it null")
    try:
        with quietly():
            network.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        raise ValueError(f"attention: {error}") from error


def _codec(source: Source, execution: Execution) -> Codec:
    if not source.has("vae"):
        return PixelCodec()
    vae = source.read("vae", torch.float32).requires_grad_(False)
    if not _wants_float32(vae.config):
        vae = vae.to(execution.dtype)
    if execution.checkpointing:
        vae.enable_gradient_checkpointing()
    if execution.slicing:
        vae.enable_slicing()
    if execution.tiling:
        vae.enable_tiling()
    return LatentCodec(vae, execution.offload)


def _wants_float32(config: Mapping[str, Any]) -> bool:
    """Whether the autoencoder's own config says so; that of Stable Diffusion 1 and 2 leaves it to the default."""
    return bool(config.get("force_upcast")) and "force_upcast" not in config.get("_use_default_values", [])


def _side(network: Any, side: int | None, pixels: int) -> tuple[int, int]:
    size = network.config.sample_size if side is None else side
    height, width = (size, size) if isinstance(size, int) else size
    return height * pixels, width * pixels
