"""What a recipe's `task` names, the Lightning module that is trained, and the trainer's settings that it supports."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from scoredistill.cli.class_lookup import find_class
from scoredistill.cli.errors import UsageError
from scoredistill.ranges import Range
from scoredistill.training.autoencoder import AutoencoderTraining
from scoredistill.training.denoising import DenoiserTraining
from scoredistill.training.distillation import Distillation
from scoredistill.training.text_to_image import TextToImageTraining
from scoredistill.training.training_module import TrainingModule

TASKS: dict[str, type[TrainingModule]] = {
    "distillation": Distillation,
    "teacher": DenoiserTraining,
    "autoencoder": AutoencoderTraining,
    "pipeline": TextToImageTraining,
}


def find_task(name: str) -> type[TrainingModule]:
    """The class that a task names.

    Args:
        name: one of `TASKS`, or the dotted path of a `TrainingModule`.

    Raises:
        UsageError: if there is no such class, or it is of another kind.
    """
    if name in TASKS:
        return TASKS[name]
    if "." not in name:
        choices = f"Choose from {', '.join(TASKS)}, or give the dotted path of a TrainingModule"
        raise UsageError(f"task: there is no {name!r}. {choices}")
    try:
        return find_class(name, [TrainingModule])
    except UsageError as error:
        raise UsageError(f"task: {error}") from error


RANGES = {
    "max_steps": (">= 1", "the generator steps of the complete training, over which schedules are defined"),
    "max_epochs": (">= 1", "leave it null: training ends after trainer.max_steps"),
    "limit_train_batches": (">= 1", "the batches per epoch; null: no limit"),
    "val_check_interval": (">= 1", "the batches between two validations"),
    "check_val_every_n_epoch": (">= 1", "the epochs between two validations; null: only trainer.val_check_interval"),
    "log_every_n_steps": (">= 0", "the steps between two lines of the log; 0: none"),
}
"""The range and the meaning of each count."""
UNLIMITED = {"max_epochs": -1}
"""Lightning's value for no limit."""
UNCOUNTED = {"limit_train_batches": 1.0}
"""Lightning's value for all batches. Other fractions have no meaning, because batches are drawn without end."""
UNUSED = {
    "accumulate_grad_batches": (1, "every network has its own optimizer; set {accumulate} instead"),
    "gradient_clip_val": (None, "every network has its own optimizer; set {optimizer}.clip instead"),
    "gradient_clip_algorithm": (None, "gradients are clipped by their norm; set {optimizer}.clip instead"),
    "overfit_batches": (0.0, "every batch is new and cannot be repeated; leave it out"),
}
"""Settings that only affect automatic optimization or a finite data set, each with its default."""


def check_trainer(trainer: Namespace, distills: bool) -> None:
    """Refuse settings that `fit` does not support.

    Args:
        trainer: settings of the trainer, by name.
        distills: whether the task trains a generator, and not a teacher or an autoencoder.

    Raises:
        UsageError: with the first setting that is out of its range or has no effect, and what to set instead.
    """
    for name, (allowed, meaning) in RANGES.items():
        value = trainer.get(name)
        if value is not None and not _counts(name, value, Range.parse(allowed)):
            raise UsageError(f"trainer.{name}: expected a whole number {allowed}, {meaning}; got {value}")
    words = {"optimizer": "model.optimizer", "accumulate": "data.batch_size"}
    if distills:
        words = {"optimizer": "model.generator_optimizer", "accumulate": "model.plan.accumulate"}
    for name, (default, reason) in UNUSED.items():
        value = trainer.get(name)
        if value != default:
            raise UsageError(f"trainer.{name}: it has no effect here, {reason.format(**words)}")


def _counts(name: str, value: Any, allowed: Range) -> bool:
    """Whether a value is a whole number in the range, or one of Lightning's special values."""
    if isinstance(value, float):
        return value == UNCOUNTED.get(name)
    return not isinstance(value, int) or value == UNLIMITED.get(name) or value in allowed
