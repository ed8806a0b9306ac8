"""Terminal output of a run: progress while it trains, and a summary of its results at the end."""

from __future__ import annotations

import time
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from scoredistill.files import read_json
from scoredistill.ranges import require
from scoredistill.training.callbacks.evaluation import (
    EvaluationError,
    EvaluationFailures,
    guarded,
    merge_metrics,
    run_folder,
)

SHOWN = {"loss": "loss", "gradient_norm": "|grad|", "critic/loss": "critic"}


class RunProgress(Callback):
    """Displays training progress: a bar on a terminal, otherwise a line every few seconds.

    Args:
        seconds: time between lines if the output is not a terminal, >= 0; 0: one line per step.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        require(">= 0", seconds=seconds)
        self.seconds = seconds
        self._console = Console(highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start = self._last_line = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the bar."""
        self._start = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        if self._console.is_terminal and trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[metrics]}"), console=self._console)
            self._task = self._bar.add_task("training", total=trainer.max_steps, metrics="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Update the bar or print a line."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, metrics=self.metrics(trainer))
        elif trainer.is_global_zero and time.monotonic() - self._last_line >= self.seconds:
            self._last_line = time.monotonic()
            self._console.print(f"step {trainer.global_step}/{trainer.max_steps}  {self.metrics(trainer)}")

    def metrics(self, trainer: Trainer) -> str:
        """Losses, gradient norm and speed, as text."""
        elapsed = time.monotonic() - self._start
        speed = (trainer.global_step - self._first_step) / max(elapsed, 1e-9)
        shown = [f"{name} {float(trainer.callback_metrics[key]):.3g}" for key, name in SHOWN.items()
                 if key in trainer.callback_metrics]  # fmt: skip
        return "  ".join([*shown, f"{speed:.2f} steps/s"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the terminal."""
        self.on_train_end(trainer, pl_module)


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
