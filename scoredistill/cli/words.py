"""What stands on the command line, before the parser sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library
from scoredistill.cli.errors import UsageError
from scoredistill.training.run_folder import RunFolder

CONFIG = ("--config", "-c")


@dataclass(frozen=True)
class Words:
    """The command line of a training command.

    Args:
        words: for the parser; every --config is a file that exists and holds YAML.
        configs: the files given by --config, in order.
        output: the parent of run folders where neither recipe nor command line names one.
        task: what is trained: distillation, teacher, autoencoder or pipeline.
        debug: whether errors come with their traceback.
    """

    words: list[str]
    configs: list[Path]
    output: str
    task: str
    debug: bool


def read_words(argv: list[str]) -> Words:
    """Take out what is ours, and resolve the names of recipes.

    A checkpoint without a recipe brings its run's own.

    Raises:
        UsageError: if a recipe is not found or is no YAML.
    """
    debug = "--debug" in argv
    words = _joined([word for word in argv if word != "--debug"])
    checkpoint = next((word.split("=", 1)[1] for word in reversed(words) if word.startswith("--ckpt_path=")), None)
    if checkpoint is not None and not any(word.startswith("--config=") for word in words):
        words = [*_config_of(checkpoint, words), *words]
    words = [_resolved(word) for word in words]
    configs = [Path(word.removeprefix("--config=")) for word in words if word.startswith("--config=")]
    tasks = [content["task"] for content in map(_content, configs) if "task" in content]
    tasks += [word.removeprefix("--task=") for word in words if word.startswith("--task=")]
    output = f"runs/{configs[0].stem}" if configs else "runs/run"
    return Words(words, configs, output, str(tasks[-1]) if tasks else "distillation", debug)


def _joined(argv: list[str]) -> list[str]:
    """Write `--config X` and `-c X` as `--config=X`, and likewise for checkpoint, output and task."""
    joined, rest = [], iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in (*CONFIG, "--ckpt_path", "--output", "--task"):
            value = value if equals else next(rest, "")
            if not value:
                raise UsageError(f"{name} needs a value")
            joined.append(f"{'--config' if name in CONFIG else name}={value}")
        else:
            joined.append(word)
    return joined


def _config_of(checkpoint: str, words: list[str]) -> list[str]:
    """The recipe of the run that a checkpoint belongs to, where none is given."""
    path, recipe = Path(checkpoint), "name its recipe by --config"
    if checkpoint == "last":
        output = next((word.split("=", 1)[1] for word in reversed(words) if word.startswith("--output=")), None)
        if output is None:
            raise UsageError(f"--ckpt_path last: the newest run of which recipe? {recipe}, or the run itself")
        newest = RunFolder.newest(output)
        if newest is None:
            raise UsageError(f"no run under {output} has a checkpoint; without --ckpt_path a new run begins")
        path = newest.path
    if not path.exists():
        raise UsageError(f"there is no checkpoint and no run folder {path}")
    run = RunFolder(path) if path.is_dir() else RunFolder.around(path)
    if run is not None and run.config.is_file():
        return [f"--config={run.config}"]
    if any(word.startswith("--model") for word in words):  # options may say all that a recipe does
        return []
    if path.is_file():
        raise UsageError(f"{path} lies in no run folder: {recipe}")
    within = RunFolder.newest(path)
    hint = f"the newest run in it is {within.path}" if within is not None else f"{recipe}, if it has checkpoints"
    raise UsageError(f"{path} is no run folder: config.yaml is missing; {hint}")


def _resolved(word: str) -> str:
    """Put the paths of shipped recipes for their names."""
    name, equals, value = word.partition("=")
    option = f"{name}{equals}" if equals and name.startswith("--") else ""
    value = value if option else word
    try:
        if option == "--config=":
            return f"{option}{recipe_library.find(value)}"
        if value.endswith(recipe_library.SUFFIXES) and not Path(value).exists():
            return f"{option}{recipe_library.shipped(value).path}"
    except recipe_library.RecipeError as error:
        if option == "--config=":
            raise UsageError(str(error)) from error
    return word


def _content(path: Path) -> dict[str, Any]:
    """What a recipe holds."""
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    if isinstance(content, dict) and "class_path" in content:
        raise UsageError(f"{path} is the value of one field, not a recipe: give it as in --model.loss {path}")
    if isinstance(content, dict) and "stages" in content:
        raise UsageError(f"{path} names several recipes: run them by `scoredistill stages {path}`")
    if isinstance(content, dict) and "axes" in content:
        raise UsageError(f"{path} is a study: run it by `scoredistill ablate {path}`")
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a recipe: it has to hold keys such as `model:`, and has {content!r:.60}")
    return content
