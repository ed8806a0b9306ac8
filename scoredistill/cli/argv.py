"""The words of the command line, before the parser reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library
from scoredistill.cli.checking import Source, nested
from scoredistill.cli.class_lookup import shown
from scoredistill.cli.errors import UsageError
from scoredistill.cli.key_types import Word
from scoredistill.cli.run_config import require_complete
from scoredistill.training.run_folder import RunFolder

CONFIG = ("--config", "-c")
FLAGS = ("--help", "-h", "--separate", "--print_config", "--dry_run")
"""Options without a value, or with an optional one."""
NOT_IN_RECIPES = {"help", "separate", "config", "ckpt_path", "debug", "print_config", "print_shtab", "dry_run"}
"""Options of a command, which are not part of a run's recipe."""


@dataclass(frozen=True)
class Words:
    """The command line of a training command.

    Args:
        words: for the parser; every --config is an existing file with YAML.
        sources: the values that they give to the keys of a recipe, in order.
        output: the parent of run folders, if neither recipe nor command line names one.
        task: distillation, teacher, autoencoder, pipeline, or the dotted path of a class.
        debug: whether errors are shown with their traceback.
    """

    words: list[str]
    sources: list[Source]
    output: str
    task: str
    debug: bool

    @property
    def asks_for_help(self) -> bool:
        """Whether the command only prints help."""
        return self.asks_for_all_options or any(word.partition("=")[0].endswith(".help") for word in self.words)

    @property
    def asks_for_all_options(self) -> bool:
        """Whether the help is about the command and not about one class."""
        return bool({"-h", "--help"} & set(self.words))


def read_words(argv: Sequence[str]) -> Words:
    """Remove --debug, and resolve the names of recipes.

    With a checkpoint and no recipe, the recipe is that of the checkpoint's run.

    Raises:
        UsageError: if a recipe is not found or is not YAML.
    """
    debug = "--debug" in argv
    words = joined([word for word in argv if word != "--debug"])
    checkpoint = next((word.split("=", 1)[1] for word in reversed(words) if word.startswith("--ckpt_path=")), None)
    if checkpoint is not None and not any(word.startswith("--config=") for word in words):
        words = [*_config_of(checkpoint, words), *words]
    words = [_with_path(word) for word in words]
    sources = [_source(word) for word in words if word.startswith("--config=") or is_setting(word)]
    tasks = [str(source.content["task"]) for source in sources if "task" in source.content]
    files = [Path(source.name) for source in sources if source.name]
    output = f"runs/{files[0].stem}" if files else "runs/run"
    return Words(words, sources, output, tasks[-1] if tasks else "distillation", debug)


def joined(argv: Sequence[str]) -> list[str]:
    """Write `--key value` as `--key=value`, and `-c` as `--config`.

    Raises:
        UsageError: if a value is missing, or a word does not belong to an option.
    """
    done = []
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = "--config" if name in CONFIG else name
        if not name.startswith("--") and name != "-h":
            raise UsageError(
                f"{shown(name)!r} is not expected there; options start with --, and a recipe comes after --config"
            )
        if name in FLAGS:
            done.append(f"{name}{equals}{value}")
            continue
        if not equals and rest and not rest[0].startswith("--"):
            equals = "="
            value = rest.pop(0)
        if not equals or (not value and name in ("--config", "--ckpt_path", "--output", "--task")):
            raise UsageError(f"{name} needs a value")
        done.append(f"{name}={value}")
    return done


def is_setting(word: str) -> bool:
    """Whether a word of the command line sets a key of a recipe: --key=value."""
    name, equals, _ = word.removeprefix("--").partition("=")
    return bool(equals) and name not in NOT_IN_RECIPES and not name.endswith(".help")


def of_option(word: str) -> Source:
    """--key=value as part of a recipe."""
    name, _, value = word.removeprefix("--").partition("=")
    return Source(nested(name, Word(value)))


def _source(word: str) -> Source:
    if not word.startswith("--config="):
        return of_option(word)
    path = Path(word.removeprefix("--config="))
    return Source(_content(path), path.parent, str(path))


def _config_of(checkpoint: str, words: list[str]) -> list[str]:
    """The recipe of the checkpoint's run, as a word."""
    path = Path(checkpoint)
    recipe = "name its recipe with --config"
    if checkpoint == "last":
        output = next((word.split("=", 1)[1] for word in reversed(words) if word.startswith("--output=")), None)
        if output is None:
            raise UsageError(f"--ckpt_path last: the newest run of which recipe? {recipe}, or name the run")
        newest = RunFolder.newest(output)
        if newest is None:
            raise UsageError(f"no run under {output} has a checkpoint; leave out --ckpt_path to start a new run")
        path = newest.path
    if not path.exists():
        raise UsageError(f"there is no checkpoint and no run folder {path}")
    run = RunFolder(path) if path.is_dir() else RunFolder.around(path)
    if run is not None and run.config.is_file():
        require_complete(run.config)
        return [f"--config={run.config}"]
    if any(word.startswith("--model") for word in words):  # options may replace a recipe
        return []
    if path.is_file():
        raise UsageError(f"{path} is not in a run folder: {recipe}")
    within = RunFolder.newest(path)
    hint = f"the newest run in it is {within.path}" if within is not None else f"{recipe}, if it has checkpoints"
    raise UsageError(f"{path} is not a run folder: config.yaml is missing; {hint}")


def _with_path(word: str) -> str:
    """--config with the path of its recipe."""
    if not word.startswith("--config="):
        return word
    try:
        return f"--config={recipe_library.find(word.removeprefix('--config='))}"
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error


def _content(path: Path) -> dict[str, Any]:
    """The content of a recipe."""
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    if isinstance(content, dict) and "class_path" in content:
        raise UsageError(f"{path} is the value of one field, not a recipe: pass it as in --model.loss {path}")
    if isinstance(content, dict) and "stages" in content:
        raise UsageError(f"{path} names several recipes: run them with `scoredistill stages {path}`")
    if isinstance(content, dict) and "axes" in content:
        raise UsageError(f"{path} is a study: run it with `scoredistill ablate {path}`")
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a recipe: expected keys such as `model:`, got {shown(content)}")
    return content
