"""Loads finished runs as Python objects."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scoredistill.cli.checking import Source, check
from scoredistill.cli.class_lookup import import_public_modules
from scoredistill.cli.errors import UsageError, essence
from scoredistill.cli.key_types import parameters, register_tensors
from scoredistill.cli.lightning_patches import quiet
from scoredistill.cli.recipe_parser import RecipeParser
from scoredistill.cli.run_config import read_config
from scoredistill.cli.tasks import find_task
from scoredistill.cli.workspace import Start, find_start
from scoredistill.distiller import Distiller
from scoredistill.generators.generator import Generator
from scoredistill.generators.one_step import OneStepUNet, SampledTeacher
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.average import DEFAULT
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.distillation import Distillation
from scoredistill.training.run_folder import RunFolder
from scoredistill.training.training_module import TrainingModule

TRAINED = "distiller.generator."


@dataclass(frozen=True)
class LoadedRun:
    """A finished run.

    Args:
        generator: the generator as it is evaluated: the moving average of the trained one, if the run has one; for a
            run that trains a teacher, samples of that teacher.
        teacher: the model of p; None for a run that trains an autoencoder or another task without one.
        distiller: generator, teacher and loss with the trained weights; None for a run of another task.
        recipe: the run's resolved recipe, config.yaml.
    """

    generator: Generator
    teacher: Teacher | None
    distiller: Distiller | None
    recipe: Mapping[str, Any]


def load(
    run: str | os.PathLike[str], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> LoadedRun:
    """Load a run of `scoredistill fit`, in evaluation mode.

    Classes that the recipe names by a dotted path are imported, and nothing else in it is called. Relative paths in the
    recipe, of a trained teacher for example, are relative to the working directory, as for `scoredistill fit`.

    Args:
        run: a run folder, a checkpoint in one, or the parent of run folders, of which the newest is loaded.
        device: where the networks are moved to.
        dtype: floating-point type of the weights; None: that in which they were trained.

    Raises:
        ValueError: if it is no run, has no checkpoint, or the checkpoint does not belong to the recipe.
    """
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            import_public_modules()
            register_tensors()
            start = find_former(os.fspath(run))
            assert start.run is not None
            assert start.checkpoint is not None
            recipe = read_config(start.run.config)
            torch.manual_seed(recipe.get("seed_everything") or 0)
            module = _module(recipe, start.run.config)
            _load_weights(module, start.checkpoint)
    except UsageError as error:
        raise ValueError(str(error)) from error
    module.to(device=device, dtype=dtype).eval()
    generator = module.eval_generator.to(device=device, dtype=dtype).eval()
    if isinstance(module, Distillation):
        return LoadedRun(generator, module.distiller.teacher, module.distiller, recipe)
    return LoadedRun(generator, generator.teacher if isinstance(generator, SampledTeacher) else None, None, recipe)


def _module(recipe: Mapping[str, Any], config: Path) -> TrainingModule:
    """A run's Lightning module as its recipe builds it, untrained."""
    task = find_task(str(recipe.get("task", "distillation")))
    parser = RecipeParser(exit_on_error=False)
    parser.add_class_arguments(task, "model", fail_untyped=False)
    arguments = parameters(task)
    seed = {"seed": recipe.get("seed_everything") or 0} if "seed" in arguments else {}
    content = {"model": {**recipe["model"], **seed}}
    required = [f"model.{name}" for name, each in arguments.items() if each.required]
    check([Source(content, config.parent, str(config))], parser.keys, required, {})
    try:
        module: TrainingModule = parser.instantiate_classes(parser.parse_object(content)).model
    except (argparse.ArgumentError, KeyError, TypeError) as error:
        raise UsageError(f"{config}: {essence(error)}") from error
    return module


def _load_weights(module: TrainingModule, checkpoint: Path) -> None:
    """Load a checkpoint in the floating-point type in which it was trained."""
    content = read_checkpoint(checkpoint)
    stored = content["state_dict"]
    trained = (
        stored[name] for name, value in module.named_parameters() if name in stored and value.is_floating_point()
    )
    first = next(trained, None)
    if first is not None:
        module.to(first.dtype)
    try:
        module.on_load_checkpoint(content)
    except ValueError as error:
        raise UsageError(f"{checkpoint}: {error}") from error
    module.load_state_dict(stored, strict=False)


def load_generator(config: Path, checkpoint: Path) -> Generator:
    """Build a run's generator with the weights for evaluation: the moving average, if the run has one.

    Args:
        config: the run's resolved recipe.
        checkpoint: of that run.

    Raises:
        UsageError: if the recipe is damaged, or the checkpoint has another generator.
    """
    recipe = read_config(config)["model"]
    generator: Generator = _built(Generator, "generator", recipe, config)
    if isinstance(generator, OneStepUNet):
        generator.bind(_built(Teacher, "teacher", recipe, config))
    content = read_checkpoint(checkpoint)
    stored = content["state_dict"]
    generator.progress = content["counters"]["progress"]
    averages = recipe.get("ema")
    first = next(iter(averages)) if isinstance(averages, Mapping) else DEFAULT
    average = f"averages.{recipe.get('evaluated') or first}.module."
    prefix = average if any(key.startswith(average) for key in stored) else TRAINED
    weights = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    try:
        # Frozen weights are the teacher's and are not in checkpoints.
        frozen = {name: value for name, value in generator.named_parameters() if not value.requires_grad}
        generator.load_state_dict(frozen | weights)
    except RuntimeError as error:
        raise UsageError(f"{checkpoint} does not fit the generator in {config}: {error}") from error
    return generator.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def find_former(source: str) -> Start:
    """The run that a generator starts from.

    Args:
        source: a run folder, a checkpoint in one, or the parent of run folders, whose newest run is used.

    Raises:
        UsageError: if there is no such run.
    """
    newest = RunFolder.newest(source)
    start = find_start(source, source if newest is None else str(newest.path))
    if start.run is None or not start.run.config.is_file():
        raise UsageError(f"{source} is neither a run folder nor a checkpoint in one: config.yaml is missing")
    return start


def _built(kind: type, name: str, recipe: dict[str, Any], config: Path) -> Any:
    parser = RecipeParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, name, fail_untyped=False)
    content = {name: recipe.get(name)}
    check([Source(content, config.parent, str(config))], parser.keys, [name], {})
    try:
        return parser.instantiate_classes(parser.parse_object(content))[name]
    except (argparse.ArgumentError, KeyError, TypeError) as error:
        raise UsageError(f"{config}: {essence(error)}") from error
