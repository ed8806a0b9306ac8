"""Loads the generator of a run for evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from scoredistill.cli.checking import Source, check
from scoredistill.cli.errors import UsageError, essence
from scoredistill.cli.recipe_parser import RecipeParser
from scoredistill.cli.stored import read_config
from scoredistill.cli.workspace import Start, find_start
from scoredistill.generators.generator import Generator
from scoredistill.generators.one_step import OneStepUNet
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.run_folder import RunFolder

AVERAGE, TRAINED = "average.module.", "distiller.generator."


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
    prefix = AVERAGE if any(key.startswith(AVERAGE) for key in stored) else TRAINED
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
