"""Fidelity of an autoencoder."""

from __future__ import annotations

from typing import cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.rendering.turntable import picture_grid, save_picture
from scoredistill.training.autoencoder import AutoencoderTraining
from scoredistill.training.callbacks.evaluation import Evaluation, guarded, require_part, run_folder
from scoredistill.training.data import ConditionDataModule
from scoredistill.training.images import Images
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch


class ReconstructionQuality(Evaluation):
    """Reconstructs real pictures, and draws some of them beneath the originals: reconstructions.png.

    psnr is 10 log10(1 / mean (u - v)^2) of display values in [0, 1] over all pictures; psnr_worst is the lowest PSNR of
    a single picture.

    Args:
        samples: number of pictures, the first of the reference, >= 1.
        shown: number of drawn pictures, >= 1.
    """

    def __init__(self, samples: int = 256, shown: int = 12) -> None:
        require(">= 1", samples=samples, shown=shown)
        self.samples = samples
        self.shown = shown

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module, AutoencoderTraining, "task: autoencoder")
        require_part(self, data, Images, "Images as data")

    def evaluate(self, module: TrainingModule, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        real, reconstructed = self._pairs(module, data, self.samples)
        error = (real - reconstructed).square().flatten(1).mean(1) / 4
        psnr = -10 * torch.stack([error.mean(), error.max()]).log10()
        return {"psnr": float(psnr[0]), "psnr_worst": float(psnr[1])}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metrics and draw the picture."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            with guarded(trainer, self):
                data = cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
                rows = torch.cat(self._pairs(cast(TrainingModule, pl_module), data, self.shown))
                save_picture(picture_grid(rows, columns=len(rows) // 2), run_folder(trainer) / "reconstructions.png")

    def _pairs(self, module: TrainingModule, data: ConditionDataModule, count: int) -> tuple[Tensor, Tensor]:
        """Real pictures and their reconstructions, on the CPU."""
        real = cast(Images, data).reference()[0][:count]
        parts = [module.eval_generator(Batch(data=part.to(module.device))).x.cpu() for part in real.split(64)]
        return real, torch.cat(parts)
