"""Training on several processes of this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forks import torchrun
from pytorch_lightning import Callback, Trainer
from training.test_module import run

from scoredistill.training import ConditionDataModule, Distillation
from scoredistill.training.checkpoints import AtomicCheckpointIO

Made = tuple[Distillation, ConditionDataModule]


def train(
    make: Callable[[], Made],
    folder: Path,
    processes: int = 1,
    strategy: str = "auto",
    steps: int = 1,
    resume: Path | None = None,
    callbacks: Callable[[], list[Callback]] = list,
) -> dict[str, Any]:
    """Train, and read the last checkpoint.

    Args:
        make: the module and its data.
        folder: for everything.
        processes: 1: this process alone.
        strategy: of Lightning's trainer.
        steps: of the generator, those of the checkpoint included.
        resume: the checkpoint that training goes on from.
        callbacks: made anew on every process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "last.ckpt"

    def fit(rank: int = 0) -> None:
        made = Trainer(
            accelerator="cpu", devices=processes, strategy=strategy, max_steps=steps, max_epochs=-1, logger=False,
            limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            plugins=[AtomicCheckpointIO()], callbacks=callbacks(), default_root_dir=folder,
        )  # fmt: skip
        module, data = make()
        run(made, module, data, resume)
        made.save_checkpoint(path)

    if processes == 1:
        fit()
    else:
        codes = torchrun(processes, fit, folder)
        said = "".join(file.read_text() for file in sorted(folder.glob("rank_*.txt")))
        assert codes == [0] * processes, said
    return torch.load(path, weights_only=True)


def assert_same_checkpoint(
    found: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-9, atol: float = 1e-11
) -> None:
    """Compare weights, buffers and optimizer states of two checkpoints."""
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=rtol, atol=atol, msg=name)
    for one, other in zip(found["optimizer_states"], expected["optimizer_states"], strict=True):
        assert one["state"].keys() == other["state"].keys()
        for number, known in other["state"].items():
            for key, value in known.items():
                torch.testing.assert_close(
                    one["state"][number][key], value, rtol=rtol, atol=atol, msg=f"{number} {key}"
                )
