"""Base classes of evaluation callbacks, and the writing of their metrics."""

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
from scoredistill.training.conditions import ConditionDataModule
from scoredistill.training.distillation import Distillation
from scoredistill.training.training_module import TrainingModule


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run."""
    return Path(trainer.default_root_dir)


def merge_metrics(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Add final metrics to the run's metrics.json, one flat object; only the first process writes.

    A metric that is NaN or infinite is written as null, with a warning.
    """
    if not trainer.is_global_zero:
        return
    path = run_folder(trainer) / "metrics.json"
    for name, value in metrics.items():
        if not math.isfinite(value):
            sys.stderr.write(f"warning: the metric {name} is {value}; it is null in {path}\n")
    known = update_json(path, dict)
    write_json_atomically(path, dict(sorted((known | dict(metrics)).items())))


class Interval:
    """Determines when something is due, at intervals of generator steps.

    Args:
        every: number of steps; 0: never.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._last = -1

    def due(self, trainer: Trainer) -> bool:
        """Whether it is due now; true at most once per generator step."""
        step = trainer.global_step
        if not self.every or step % self.every or step == self._last:
            return False
        self._last = step
        return True


class EvaluationError(Exception):
    """Some results are missing at the end of a run; all others were written."""


class EvaluationFailures(Callback):
    """Records failed final evaluations, for a callback that comes last and ends the run with an error."""

    def __init__(self) -> None:
        self.failed: list[str] = []


@contextmanager
def guarded(trainer: Trainer, callback: Callback) -> Iterator[None]:
    """Report an error of a final evaluation on one line and record it, so that later results are not lost.

    Args:
        trainer: its callbacks are searched for `EvaluationFailures`; without one, the error is raised.
        callback: the callback that evaluates.
    """
    try:
        yield
    except (ValueError, RuntimeError, TypeError, ImportError, OSError) as error:
        failures = next((other for other in trainer.callbacks if isinstance(other, EvaluationFailures)), None)  # type: ignore[attr-defined]
        if failures is None:
            raise
        name = type(callback).__name__
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            why = reason(error, run_folder(trainer))
        sys.stderr.write(f"warning: {name} failed: {why}\n")
        failures.failed.append(name)


class GeneratorCallback(Callback):
    """A callback that uses the evaluated generator. A subclass checks its requirements in `check`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the requirements before training, because an error at its end would cost a complete run.

        Raises:
            TypeError: if the callback does not support this generator, teacher or data.
        """
        if stage != "predict":
            self.check(cast(TrainingModule, pl_module), cast(ConditionDataModule, trainer.datamodule))  # type: ignore[attr-defined]

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        """Refuse a generator, teacher or data that the callback does not support.

        Args:
            module: the module of the evaluated generator.
            data: the prompts, cameras or pictures.

        Raises:
            TypeError: with the callback's name, the required type and the actual type.
        """


def require_part(callback: Callback, part: object, kinds: type | tuple[type, ...], needs: str) -> None:
    """Check the type of a generator, teacher or data that a callback uses.

    Args:
        callback: the callback.
        part: the generator, the teacher or the data.
        kinds: the supported types.
        needs: description of these types for the message.

    Raises:
        TypeError: if the part has another type.
    """
    if not isinstance(part, kinds):
        raise TypeError(f"{type(callback).__name__} needs {needs}, got {type(part).__name__}")


class Evaluation(GeneratorCallback, ABC):
    """Computes metrics of the evaluated generator, in validate and test and at the end of fit.

    A subclass implements `evaluate`. All metrics are logged; final ones are also written into metrics.json.
    """

    @abstractmethod
    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        """Compute metrics by name.

        Args:
            module: the module of the evaluated generator.
            data: the prompt and the cameras.
            final: whether this is a final evaluation, which may also compute slow metrics.
        """

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, final: bool) -> None:
        module = cast(Distillation, pl_module)
        data = cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        with module.gathered() as evaluates, torch.no_grad():
            metrics = self.evaluate(module, data, final) if evaluates else {}
        if not evaluates:
            return
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=module.global_step)
        if final:
            merge_metrics(trainer, metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, without slow metrics during training."""
        if trainer.sanity_checking:
            return
        if trainer.training:
            self._evaluate(trainer, pl_module, final=False)
        else:
            self._evaluate_final(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the final metrics."""
        self._evaluate_final(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the final metrics."""
        self._evaluate_final(trainer, pl_module)

    def _evaluate_final(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with guarded(trainer, self):
            self._evaluate(trainer, pl_module, final=True)
