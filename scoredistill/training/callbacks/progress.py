"""Progress of a run: a bar with losses, gradient norm and steps per second."""

from __future__ import annotations

import time

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from scoredistill.ranges import require

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
