"""What a run ends with: its figures, and where its results are."""

from __future__ import annotations

import json
import time

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from scoredistill.training.callbacks.base import merge_figures, run_folder

RESULTS = ("turntable*", "grid.png", "meshes", "metrics.json", "checkpoints")


class Summary(Callback):
    """Adds `seconds` to metrics.json and prints the figures and the paths of the results. It has to come last.

    `seconds` is the wall-clock time of fit, from its set-up to the last result, without the import of libraries; of a
    resumed run, all parts together are not known, so it is that of the last part.
    """

    def __init__(self) -> None:
        self._start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `seconds` and print."""
        if not trainer.is_global_zero:
            return
        merge_figures(trainer, {"seconds": time.monotonic() - self._start})
        folder, console = run_folder(trainer), Console(highlight=False)
        table = Table("figure", "value", title="final figures")
        for name, value in json.loads((folder / "metrics.json").read_text()).items():
            table.add_row(name, f"{value:.4g}")
        console.print(table)
        for pattern in RESULTS:
            for path in sorted(folder.glob(pattern)):
                console.print(f"{path.stem if path.is_file() else path.name:>12}  {path}", soft_wrap=True)
