"""The output at the end of a command: its metrics and the paths of its results."""

from __future__ import annotations

import time
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from scoredistill.files import read_json
from scoredistill.training.callbacks.evaluation import (
    EvaluationError,
    EvaluationFailures,
    guarded,
    merge_metrics,
    run_folder,
)

RESULTS = ("turntable*", "grid.png", "meshes", "metrics.json", "checkpoints")


class Summary(EvaluationFailures):
    """Prints the metrics and the paths of the results of fit, validate and test. It must be the last callback.

    If a final evaluation failed, the command then ends with an error. fit adds `seconds` to metrics.json, the
    wall-clock time from its set-up to the last result, without the import of libraries; for a resumed run it is the
    time of the last part.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self.failed.clear()
        self._start = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `seconds` and print."""
        with guarded(trainer, self):
            merge_metrics(trainer, {"seconds": time.monotonic() - self._start})
        self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print, except during training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            _print(folder)
        if self.failed:
            names = ", ".join(dict.fromkeys(self.failed))
            raise EvaluationError(f"{names} failed, see the warnings above; all other results are in {folder}")


def _print(folder: Path) -> None:
    """Print the metrics and the paths of the results."""
    console = Console(highlight=False)
    metrics = read_json(folder / "metrics.json", dict)
    if metrics:
        table = Table("metric", "value", title="final metrics")
        for name, value in metrics.items():
            table.add_row(str(name), f"{value:.4g}" if isinstance(value, int | float) else "not finite")
        console.print(table)
    else:
        console.print("no metrics: the recipe has no evaluation callbacks (trainer.callbacks)")
    for pattern in RESULTS:
        for path in sorted(folder.glob(pattern)):
            console.print(f"{path.stem if path.is_file() else path.name:>12}  {path}", soft_wrap=True)
