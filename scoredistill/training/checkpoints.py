"""Checkpoints: when they are written, and that a reader never sees half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from scoredistill.files import write_atomically
from scoredistill.networks.finite import first_not_finite
from scoredistill.networks.weights import flaw
from scoredistill.ranges import require

LOOKED_AT = ("state_dict", "optimizer_states")
"""What of a checkpoint has to be finite."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint's content on the CPU; tensors are mapped from the disk.

    Args:
        path: a local file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no checkpoint of a run, or holds weights or optimizer states that are NaN or infinite.
    """
    with open(path, "rb"):
        pass  # what the system says of it is clearer than what torch does
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch meets other files with all kinds
        reason = flaw(Path(path)) or "cannot be read as one"
        raise ValueError(f"{os.fspath(path)} is no checkpoint: it {reason}") from error
    if not isinstance(content, dict) or not {"state_dict", "global_step"} <= content.keys():
        raise ValueError(f"{os.fspath(path)} is no checkpoint of a run: it holds no state_dict and global_step")
    lost = first_not_finite({key: content.get(key) for key in LOOKED_AT})
    if lost is not None:
        raise ValueError(
            f"{os.fspath(path)} cannot be used: {lost} is not finite (NaN or infinity). Training had diverged when it "
            "was written; train again at a lower learning rate, or use an earlier checkpoint"
        )
    return content


class LastCheckpoint(Checkpoint):
    """Writes checkpoints/last.ckpt in the run folder: every so many generator steps, and when training ends.

    Args:
        every: generator steps between two checkpoints, >= 1.
    """

    def __init__(self, every: int = 100) -> None:
        require(">= 1", every=every)
        super().__init__()
        self.every = every
        self.step: int | None = None
        """Generator steps that the last checkpoint has; None: there is none yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know the checkpoint that training was resumed from."""
        self.step = trainer.global_step or None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write one if it is time. A tick that only trains a critic makes no generator step, and no checkpoint."""
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last one."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step > (self.step or 0):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            self.step = trainer.global_step


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the destination and renames. Lightning's own goes by way of the system's folder for temporary
    files, which may be another disk: moving from there is copying, and a killed copy is half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: what to write.
            path: a local file.
            storage_options: Lightning's, not used.
        """
        write_atomically(os.fspath(path), lambda file: torch.save(checkpoint, file))
