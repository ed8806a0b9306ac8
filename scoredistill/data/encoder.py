"""The encoder of a text-to-image pipeline, for latent caches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoredistill.networks.storage import find_trained
from scoredistill.teachers.diffusers.codec import LatentCodec
from scoredistill.teachers.diffusers.loading import Source


class PictureEncoder(nn.Module):
    """Encodes pictures to the latents of a pipeline's `DiffusersTeacher`, for `encode` of `LatentCache`.

    High-Resolution Image Synthesis with Latent Diffusion Models, 2021, arXiv:2112.10752.

    Args:
        model: id on the hub, folder of a pipeline, or output folder of the recipe that trains one, whose newest
            finished run is used.
        revision: branch, tag or commit of a hub repository; None: its main branch.
        variant: variant of the weight files, such as fp16; None: no variant.

    Raises:
        ValueError: if the pipeline does not exist or has no autoencoder.
    """

    def __init__(self, model: str, revision: str | None = None, variant: str | None = None) -> None:
        super().__init__()
        source = Source(str(find_trained(model, "pipeline", "model_index.json") or model), revision, variant)
        self.codec = LatentCodec(source.read("vae", torch.float32).requires_grad_(False)).eval()

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures, on a GPU if there is one; the latents are on the CPU.

        Args:
            pictures: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, C, h, w).
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.codec.to(device).encode(pictures.to(device)).cpu()
