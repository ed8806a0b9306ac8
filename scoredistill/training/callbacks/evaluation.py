"""What evaluation callbacks share: when they look, and where their metrics go."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from scoredistill.files import reason, update_json, write_json_atomically
from scoredistill.training.data import ConditionDataModule
from scoredistill.training.module import Distillation
from scoredistill.training.training_module import TrainingModule


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run, into which everything is written."""
    return Path(trainer.default_root_dir)


def merge_metrics(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Add final metrics to the run's metrics.json, one flat object; only the first process writes.

    A figure that is NaN or infinite is null there, and a warning names it.
    """
    if not trainer.is_global_zero:
        return
    path = run_folder(trainer) / "metrics.json"
    for name, value in metrics.items():
        if not math.isfinite(value):
            sys.stderr.write(f"warning: the figure {name} is {value}; it is null in {path}\n")
    known = update_json(path, dict)
    write_json_atomically(path, dict(sorted((known | dict(metrics)).items())))


class Interval:
    """Tells once in every so many generator steps that something is due.

    Args:
        every: steps; 0: never.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._last = -1

    def due(self, trainer: Trainer) -> bool:
        """Whether it is now; the ticks of one generator step after the first are not."""
        step = trainer.global_step
        if not self.every or step % self.every or step == self._last:
            return False
        self._last = step
        return True


class EvaluationError(Exception):
    """Some results are missing at the end of a run; all others are there."""


class EvaluationFailures(Callback):
    """Takes down which final looks failed, for a callback that comes last and has to end the run with an error."""

    def __init__(self) -> None:
        self.failed: list[str] = []


@contextmanager
def guarded(trainer: Trainer, callback: Callback) -> Iterator[None]:
    """A final look, whose failure is told on one line and taken down, so that later results are not lost.

    Args:
        trainer: whose callbacks are searched for `EvaluationFailures`; without one, an error is raised as it is.
        callback: that looks.
    """
    try:
        yield
    except (ValueError, RuntimeError, TypeError, ImportError, OSError) as error:
        failures = next((other for other in trainer.callbacks if isinstance(other, EvaluationFailures)), None)  # type: ignore[attr-defined]
        if failures is None:
            raise
        name, why = type(callback).__name__, " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            why = reason(error, run_folder(trainer))
        sys.stderr.write(f"warning: {name} failed: {why}\n")
        failures.failed.append(name)


class Look(Callback):
    """What looks at the evaluated generator. A subclass says in `check` what it needs."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before training: what fails at the end has cost a whole run.

        Raises:
            TypeError: that names the callback, if it cannot look at this generator, teacher or data.
        """
        if stage != "predict":
            self.check(cast(TrainingModule, pl_module), cast(ConditionDataModule, trainer.datamodule))  # type: ignore[attr-defined]

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        """Refuse what cannot be looked at.

        Args:
            module: whose evaluated generator is to be looked at.
            data: the prompts, cameras or pictures.

        Raises:
            TypeError: naming the callback, what it needs and what there is instead.
        """


def require_part(looker: Callback, part: object, kinds: type | tuple[type, ...], needs: str) -> None:
    """Check the type of what a callback looks at.

    Args:
        looker: the callback.
        part: the generator, the teacher or the data.
        kinds: of which it has to be.
        needs: what to call these in the message, and the remedy.

    Raises:
        TypeError: if it is of another type.
    """
    if not isinstance(part, kinds):
        raise TypeError(f"{type(looker).__name__} needs {needs}; there is {type(part).__name__}")


class Evaluation(Look, ABC):
    """Metrics of the evaluated generator, in validate and test and at the end of fit. A subclass implements `evaluate`.

    Interim metrics go to the loggers, final ones into metrics.json as well.
    """

    @abstractmethod
    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        """Metrics by name.

        Args:
            module: whose evaluated generator is looked at.
            data: the prompt and the cameras.
            final: whether this is the last look, at which what is slow may be measured too.
        """

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, final: bool) -> None:
        module, data = cast(Distillation, pl_module), cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        with module.gathered() as looks, torch.no_grad():
            metrics = self.evaluate(module, data, final) if looks else {}
        if not looks:
            return
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=module.global_step)
        if final:
            merge_metrics(trainer, metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, without what is slow while training goes on."""
        if trainer.sanity_checking:
            return
        if trainer.training:
            self._evaluate(trainer, pl_module, final=False)
        else:
            self._final_look(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at everything."""
        self._final_look(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at everything."""
        self._final_look(trainer, pl_module)

    def _final_look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with guarded(trainer, self):
            self._evaluate(trainer, pl_module, final=True)
