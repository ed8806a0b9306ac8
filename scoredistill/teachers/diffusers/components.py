"""The components of a pipeline that a teacher needs: network, codec, schedule and prediction type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoredistill.diffusion.schedule import DiscreteSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.teachers.diffusers.codec import Codec, LatentCodec, PixelCodec
from scoredistill.teachers.diffusers.encoder import PipelineEncoder, TextEncoder
from scoredistill.teachers.diffusers.families import FAMILIES, Setting
from scoredistill.teachers.diffusers.loading import Source, quietly

_PREDICTIONS: dict[str, Parameterization] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}


def is_flow(scheduler: Any) -> bool:
    """Whether x_t = (1 - t) x + t epsilon."""
    return type(scheduler).__name__.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))


def schedule_of(scheduler: Any) -> Schedule:
    """The noise schedule of a scheduler's config. Settings of the sampler are ignored.

    A flow's `shift` is ignored too, because it only changes the sampler's times.

    Args:
        scheduler: a scheduler of diffusers.

    Raises:
        ValueError: if it has no betas and is not a flow.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return FlowSchedule()
    if not hasattr(scheduler, "betas"):
        raise ValueError(
            f"model: the schedule of a {type(scheduler).__name__} is not supported; supported are schedulers with "
            "betas (DDPM, DDIM, PNDM, Euler, DPMSolver, UniPC) and of flows (FlowMatchEuler)"
        )
    plain = config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr")
    if plain and config.beta_schedule in ("linear", "scaled_linear"):
        scaled = config.beta_schedule == "scaled_linear"
        return LinearSchedule(config.beta_start, config.beta_end, scaled, config.num_train_timesteps)
    return DiscreteSchedule(scheduler.betas)


def prediction_of(scheduler: Any) -> Parameterization:
    """The output of the network, from its scheduler's config.

    Args:
        scheduler: a scheduler of diffusers.

    Raises:
        ValueError: if the prediction type is not supported.
    """
    kind = "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ValueError(f"model: the scheduler's prediction_type {kind!r} is not among {', '.join(_PREDICTIONS)}")
    return _PREDICTIONS[kind]


@dataclass(frozen=True)
class Execution:
    """Execution settings of the parts.

    Args:
        dtype: dtype of weights and activations; an autoencoder whose config requires float32 keeps it.
        attention: backend of the network's attention; None: the library's default.
        compile: compile the network.
        offload: keep the autoencoder's decoder and the text encoders on the CPU.
        checkpointing: recompute activations in the backward pass.
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
    """The parts of a pipeline.

    Args:
        denoiser: the network with its parameterization.
        schedule: noise schedule.
        codec: between pictures and the denoiser's space.
        encoder: text encoder.
        side: height and width of the training pictures in pixels.
        zeros: whether the unconditional model has zeros in place of the empty text's embeddings.
    """

    denoiser: Denoiser
    schedule: Schedule
    codec: Codec
    encoder: TextEncoder
    side: tuple[int, int]
    zeros: bool


def take_apart(source: Source, execution: Execution, guidance: float | None = None) -> Parts:
    """Load the parts of a pipeline. Text encoders are loaded later, when they are needed.

    Args:
        source: location of the pipeline.
        execution: execution settings of the parts.
        guidance: guidance scale that conditions a guidance-distilled network; None: 1 for such a network.

    Raises:
        ValueError: if the pipeline is missing or its class is not supported, or a setting does not apply to it.
    """
    if source.name not in FAMILIES:
        raise ValueError(f"model: {source.model} is a {source.name}; supported are {', '.join(FAMILIES)}")
    family = FAMILIES[source.name]
    scheduler = source.read("scheduler")
    if guidance is not None and source.name != "FluxPipeline":
        raise ValueError(f"guidance_embedding: a {source.name} has no guidance embedding: set null")
    network = _network(source, family.network, execution)
    codec = _codec(source, execution)
    schedule, prediction = schedule_of(scheduler), prediction_of(scheduler)
    backbone = family.backbone(network, Setting(schedule, codec.pixels, guidance))
    denoiser = Denoiser(backbone, prediction, scale_input=prediction != "flow")
    # `encode_prompt` reads the transformer's config if the pipeline has no T5, but never a UNet's.
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
    """Set the attention backend. Raises ValueError if the network or this machine does not support it."""
    if not any(hasattr(each, "_attention_backend") for each in network.attn_processors.values()):
        raise ValueError(f"attention: a {type(network).__name__} of diffusers has no attention backends: set null")
    try:
        with quietly():
            network.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        raise ValueError(f"attention: {error}") from error


def _codec(source: Source, execution: Execution) -> Codec:
    if not source.has("vae"):
        return PixelCodec()
    vae = source.read("vae", torch.float32).requires_grad_(False)
    if not _requires_float32(vae.config):
        vae = vae.to(execution.dtype)
    if execution.checkpointing:
        vae.enable_gradient_checkpointing()
    if execution.slicing:
        vae.enable_slicing()
    if execution.tiling:
        vae.enable_tiling()
    return LatentCodec(vae, execution.offload)


def _requires_float32(config: Mapping[str, Any]) -> bool:
    """Whether the config sets `force_upcast` explicitly. Stable Diffusion 1 and 2 only have it by default."""
    return bool(config.get("force_upcast")) and "force_upcast" not in config.get("_use_default_values", [])


def _side(network: Any, side: int | None, pixels: int) -> tuple[int, int]:
    size = network.config.sample_size if side is None else side
    height, width = (size, size) if isinstance(size, int) else size
    return height * pixels, width * pixels
