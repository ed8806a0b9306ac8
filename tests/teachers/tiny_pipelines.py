"""Tiny pipelines of every family, of the real classes, saved as folders."""

import json
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scoredistill.teachers import DiffusersTeacher, PromptSettings

LETTERS = [*string.ascii_lowercase, ","]


def clip(folder: Path, width: int = 8, projected: bool = False) -> tuple[Any, Any]:
    """A CLIP text encoder of two layers, and a tokenizer by letters with at most 16 tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    n = len(words)
    config = CLIPTextConfig(
        vocab_size=n, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=n - 2, eos_token_id=n - 1, pad_token_id=n - 1, projection_dim=width,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config), tokenizer


def t5(width: int = 8) -> tuple[Any, Any]:
    """A T5 encoder of two layers, and a tokenizer by letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    words = ["<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS)]
    tokenizer = T5Tokenizer(vocab=[(word, -1.0) for word in words], extra_ids=0)
    config = T5Config(vocab_size=len(words), d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return T5EncoderModel(config), tokenizer


def vae(channels: int = 4, shift: float | None = None) -> Any:
    """An autoencoder of two levels, with latents of half the picture's side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=2, latent_channels=channels, layers_per_block=1, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.7,
        shift_factor=shift,
    )  # fmt: skip


def unet(channels: int = 4, cross: int = 8, out: int | None = None, **settings: object) -> Any:
    """A UNet of two levels."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=out or channels, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), attention_head_dim=4, cross_attention_dim=cross,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **settings,
    )  # fmt: skip


def ddim(**settings: object) -> Any:
    from diffusers import DDIMScheduler

    usual = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDIMScheduler.from_config(usual | {"steps_offset": 1, "set_alpha_to_one": False} | settings)


def stable_diffusion(folder: Path, network: Any = None, **settings: object) -> Any:
    from diffusers import StableDiffusionPipeline

    text, tokenizer = clip(folder / "words")
    return StableDiffusionPipeline(
        vae(), text, tokenizer, network or unet(), ddim(**settings), None, None, requires_safety_checker=False
    )


def velocity(folder: Path) -> Any:
    return stable_diffusion(folder, prediction_type="v_prediction")


def zero_terminal(folder: Path) -> Any:
    return stable_diffusion(folder, prediction_type="v_prediction", rescale_betas_zero_snr=True)


def multi_view(folder: Path) -> Any:
    network = unet(class_embed_type="simple_projection", projection_class_embeddings_input_dim=16)
    return stable_diffusion(folder, network)


def sdxl(folder: Path) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    first, second = clip(folder / "one"), clip(folder / "two", projected=True)
    network = unet(
        cross=16, addition_embed_type="text_time", addition_time_embed_dim=4, transformer_layers_per_block=1,
        projection_class_embeddings_input_dim=8 + 6 * 4,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return StableDiffusionXLPipeline(
        vae(), first[0], second[0], first[1], second[1], network, scheduler, add_watermarker=False
    )


def sd3(folder: Path) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    first, second, third = clip(folder / "one", projected=True), clip(folder / "two", projected=True), t5(16)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=8,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        network, FlowMatchEulerDiscreteScheduler(shift=3.0), vae(16, 0.1), *first, *second, *third
    )


def flux(folder: Path, distilled: bool = False) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    first, second = clip(folder / "one"), t5(16)
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=distilled, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=distilled)
    return FluxPipeline(scheduler, vae(16, 0.1), *first, *second, network)


def flux_distilled(folder: Path) -> Any:
    return flux(folder, distilled=True)


def pixart(folder: Path, sized: bool = True) -> Any:
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    text, tokenizer = t5()
    network = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, norm_num_groups=1,
        cross_attention_dim=24, sample_size=128 if sized else 8, caption_channels=8,
    )  # fmt: skip
    kind = PixArtAlphaPipeline if sized else PixArtSigmaPipeline
    scheduler = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    return kind(tokenizer, text, vae(), network, scheduler)


def pixart_sigma(folder: Path) -> Any:
    return pixart(folder, sized=False)


def deepfloyd(folder: Path) -> Any:
    from diffusers import DDPMScheduler, IFPipeline

    text, tokenizer = t5()
    network = unet(3, 8, out=6, encoder_hid_dim=8, addition_embed_type="text", addition_embed_type_num_heads=2)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    return IFPipeline(tokenizer, text, network, scheduler, None, None, None, requires_safety_checker=False)


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "sd": stable_diffusion,
    "sd-v": velocity,
    "sd-zero-snr": zero_terminal,
    "multi-view": multi_view,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "flux-distilled": flux_distilled,
    "pixart-alpha": pixart,
    "pixart-sigma": pixart_sigma,
    "if": deepfloyd,
}


@contextmanager
def in_float32() -> Iterator[None]:
    """Set float32 as the default type, as the libraries' pipelines expect."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


def saved(family: str, folder: Path) -> str:
    """The folder of a tiny pipeline with nonzero network weights."""
    with in_float32():
        pipeline = FAMILIES[family](folder / "words")
        generator = torch.Generator().manual_seed(0)
        for name in ("unet", "transformer"):
            for weight in getattr(getattr(pipeline, name, None), "parameters", list)():
                if not weight.any():
                    torch.nn.init.normal_(weight, std=0.1, generator=generator)
        pipeline.save_pretrained(folder / "pipeline")
    return str(folder / "pipeline")


def teacher_of(family: str, folder: Path, **settings: Any) -> DiffusersTeacher:
    """A teacher from a tiny pipeline for pictures of 16 pixels, with embeddings in memory only."""
    pixels = {} if family == "if" else {"resolution": 16}
    usual: dict[str, Any] = {"prompts": PromptSettings(cache=None)} | pixels
    return DiffusersTeacher(saved(family, folder), **usual | settings)


def stock(teacher: DiffusersTeacher) -> Any:
    """The library's own pipeline from the same folder."""
    from diffusers import DiffusionPipeline

    with in_float32():
        pipeline = DiffusionPipeline.from_pretrained(teacher.source.model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
