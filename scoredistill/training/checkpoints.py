"""Reading checkpoints, and writing them at intervals and atomically."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from scoredistill.files import write_atomically
from scoredistill.networks.modules import first_not_finite
from scoredistill.networks.weight_files import flaw
from scoredistill.ranges import require

CHECKED = ("state_dict", "optimizer_states")
"""Keys of a checkpoint whose tensors must be finite."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint on the CPU, with tensors mapped from the file.

    Args:
        path: a local file.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is not a checkpoint of a run, or its weights or optimizer states are NaN or infinite.
    """
    with open(path, "rb"):
        pass  # the operating system's error is clearer than torch's
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types for other files
        reason = flaw(Path(path)) or "cannot be read"
        raise ValueError(f"{os.fspath(path)} is not a checkpoint: it {reason}") from error
    if not isinstance(content, dict) or not {"state_dict", "global_step"} <= content.keys():
        raise ValueError(f"{os.fspath(path)} is not a checkpoint of a run: it has no state_dict and global_step")
    lost = first_not_finite({key: content.get(key) for key in CHECKED})
    if lost is not None:
        raise ValueError(
            f"{os.fspath(path)} cannot be used: {lost} is not finite (NaN or infinity). Training had diverged when it "
            "was written; train again at a lower learning rate, or use an earlier checkpoint"
        )
    return content


class LastCheckpoint(Checkpoint):
    """Writes checkpoints/last.ckpt in the run folder at intervals of generator steps and when training ends.

    Args:
        every: generator steps between two checkpoints, >= 1.
    """

    def __init__(self, every: int = 100) -> None:
        require(">= 1", every=every)
        super().__init__()
        self.every = every
        self.step: int | None = None
        """Generator step of the last checkpoint; None before the first."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the step of the checkpoint that training resumes from."""
        self.step = trainer.global_step or None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write one at intervals. A tick that trains only a critic makes no generator step and no checkpoint."""
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
    """Writes checkpoints next to their destination and renames them.

    Lightning's plugin writes into the system's folder for temporary files. If that is on another disk, the file is
    copied to its destination, and a process killed during the copy leaves a partial checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: its content.
            path: a local file.
            storage_options: unused.
        """
        write_atomically(os.fspath(path), lambda file: torch.save(checkpoint, file))
