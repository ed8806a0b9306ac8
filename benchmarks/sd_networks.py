"""Stable Diffusion 2.1's architecture in three sizes, with random weights, which do not change a step's time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch.nn import Module

from scoredistill.generators.fields import DenseGrid
from scoredistill.generators.nerf import NeRF
from scoredistill.teachers import DiffusersTeacher
from scoredistill.teachers.diffusers.loading import quietly
from scoredistill.teachers.diffusers.prompts import PromptEmbedder, PromptSettings
from scoredistill.types import TextEmbeddings

TOKENS = 77
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Size:
    """One size of the networks.

    Args:
        unet: channels of the UNet's four levels.
        heads: of attention at each.
        text: width of the text embeddings.
        vae: channels of the autoencoder's four levels.
        groups: of group normalization.
        pixels: of a picture's side, eight to a latent's.
        samples: parts of a ray.
        matrix: side of the matrices by which the device's rate is measured.
    """

    unet: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    text: int
    vae: tuple[int, int, int, int]
    groups: int
    pixels: int
    samples: int
    matrix: int

    def make_unet(self) -> Module:
        """The denoiser, on the current default dtype and device."""
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(
            sample_size=self.pixels // 8, block_out_channels=self.unet, attention_head_dim=self.heads,
            cross_attention_dim=self.text, norm_num_groups=self.groups, use_linear_projection=True,
        )  # fmt: skip

    def make_vae(self) -> Module:
        """The autoencoder."""
        from diffusers import AutoencoderKL

        return AutoencoderKL(
            sample_size=self.pixels, block_out_channels=self.vae, norm_num_groups=self.groups, layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip

    def nerf(self, particles: int) -> NeRF:
        """Particles with pictures of the model's size, without resizing."""
        return NeRF(particles, DenseGrid(64), resolution=self.pixels, samples=self.samples)


SIZES = {
    "full": Size((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, (128, 256, 512, 512), 32, 512, 64, 8192),
    # Every width is .3 of the full size, so that UNet and autoencoder keep their shares of a step.
    "mid": Size((96, 192, 384, 384), (3, 6, 12, 12), 1024, (40, 80, 160, 160), 8, 256, 32, 1536),
    "tiny": Size((8, 8, 16, 16), (2, 2, 2, 2), 12, (8, 8, 8, 8), 4, 32, 8, 64),
}


class RandomTexts:
    """Replaces the text encoder: every text gets random embeddings.

    Args:
        width: of the embeddings.
    """

    key = "random"

    def __init__(self, width: int) -> None:
        self.width = width

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embeddings, one row per text."""
        return TextEmbeddings(torch.randn(len(texts), TOKENS, self.width))

    def truncations(self, text: str) -> list[tuple[str, str]]:
        """No text is truncated."""
        return []

    def release(self) -> None:
        """There is nothing to free."""


def random_teacher(size: Size, dtype: Precision) -> DiffusersTeacher:
    """A pipeline with random weights, saved and read like any other.

    Args:
        size: of its networks.
        dtype: of its weights.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    with TemporaryDirectory() as folder, quietly():
        unet, vae = (part.to(getattr(torch, dtype)) for part in (size.make_unet(), size.make_vae()))
        made = StableDiffusionPipeline(vae, None, None, unet, scheduler, None, None, requires_safety_checker=False)
        made.save_pretrained(folder)
        del unet, vae, made  # else there would be two at a time
        teacher = DiffusersTeacher(folder, dtype=dtype)
    teacher.prompts = PromptEmbedder(RandomTexts(size.text), PromptSettings(cache=None))
    return teacher
