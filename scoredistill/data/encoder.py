"""The autoencoder of a text-to-image pipeline, for latents that are encoded once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoredistill.networks.storage import find_trained
from scoredistill.teachers.diffusers.codec import LatentCodec
from scoredistill.teachers.diffusers.loading import Source


class PictureEncoder(nn.Module):
    """Pictures to the latents in which a `DiffusersTeacher` of the same pipeline lives: `encode` of `LatentCache`.

    High-Resolution Image Synthesis with Latent Diffusion Models, 2021, arXiv:2112.10752.

    Args:
        model: id on the hub, the folder of a pipeline, or the output of the recipe that trains one, whose newest
            finished run counts.
        revision: of a hub repository: branch, tag or commit; None: its main branch.
        variant: of the weights' files, fp16 for example; None: the plain ones.

    Raises:
        ValueError: if there is no such pipeline, or it has no autoencoder.
    """

    def __init__(self, model: str, revision: str | None = None, variant: str | None = None) -> None:
        super().__init__()
        source = Source(str(find_trained(model, "pipeline", "model_index.json") or model), revision, variant)
        self.codec = LatentCodec(source.read("vae", torch.float32).requires_grad_(False)).eval()

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Latents on the CPU; they are encoded on a GPU where there is one.

        Args:
            pictures: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, C, h, w).
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.codec.to(device).encode(pictures.to(device)).cpu()
