"""What a recipe's `task` names: the Lightning module that is trained."""

from __future__ import annotations

from scoredistill.cli.errors import UsageError
from scoredistill.cli.parsing import find_class
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
