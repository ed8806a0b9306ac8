"""What evaluation callbacks share: when they look, and where their figures go."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from scoredistill.rendering.files import write_atomically
from scoredistill.training.data import Conditions
from scoredistill.training.module import Distillation


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run, into which everything is written."""
    return Path(trainer.default_root_dir)


def merge_figures(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Add final figures to the run's metrics.json, one flat object; only the first process writes."""
    if not trainer.is_global_zero:
        return
    path = run_folder(trainer) / "metrics.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    text = json.dumps(dict(sorted((known | dict(figures)).items())), indent=2)
    write_atomically(path, lambda file: file.write(f"{text}\n".encode()))


class Evaluation(Callback, ABC):
    """Figures of the evaluated generator, in validate and test and at the end of fit. A subclass implements `evaluate`.

    Interim figures go to the loggers, final ones into metrics.json as well.
    """

    @abstractmethod
    def evaluate(self, module: Distillation, data: Conditions, final: bool) -> dict[str, float]:
        """Figures by name.

        Args:
            module: whose evaluated generator is looked at.
            data: the prompt and the cameras.
            final: whether this is the last look, at which what is slow may be measured too.
        """

    def _look(self, trainer: Trainer, pl_module: LightningModule, final: bool) -> None:
        module, data = cast(Distillation, pl_module), cast(Conditions, trainer.datamodule)  # type: ignore[attr-defined]
        with torch.no_grad():
            figures = self.evaluate(module, data, final)
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=module.global_step)
        if final:
            merge_figures(trainer, figures)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, without what is slow while training goes on."""
        if not trainer.sanity_checking:
            self._look(trainer, pl_module, final=not trainer.training)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at everything."""
        self._look(trainer, pl_module, final=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at everything."""
        self._look(trainer, pl_module, final=True)
