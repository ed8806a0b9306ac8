"""The text of --help: what it shows and hides, and the options of the classes that the command line names."""

from __future__ import annotations

import argparse
import re
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator, Mapping, Sequence

from jsonargparse import DefaultHelpFormatter

from scoredistill.cli import key_types
from scoredistill.cli.argv import Words, is_setting
from scoredistill.cli.checking import Checker, Spec
from scoredistill.cli.recipe_parser import RecipeParser

TRAINER = {
    "accelerator": "cpu, gpu, mps or auto.",
    "devices": "number of devices, or a list of their indices.",
    "precision": "32-true, bf16-mixed, 16-mixed, 64-true, ...",
    "max_steps": "generator steps.",
    "max_time": "stop after DD:HH:MM:SS.",
    "callbacks": "metrics and pictures: ParticleGrid, Turntable, ModeStatistics, GalleryFidelity, ...",
    "logger": "CSVLogger, TensorBoardLogger, ...; a relative save_dir is inside the run folder; false: none.",
    "log_every_n_steps": "generator steps between two log lines.",
    "val_check_interval": "training batches between two validations.",
    "detect_anomaly": "find the operation that produced a NaN.",
}
"""The help of the trainer's main arguments; all others are hidden, but work."""

EPILOG = """\
Every option can be in a recipe, a YAML file: `--model.loss SDS` is `model: {loss: SDS}`. A class is set by its name or
dotted path, its arguments by class_path and init_args in a recipe or by further options (--model.loss VSD
--model.loss.critic ParticleCritic), or class and arguments by the path of a YAML file. `--model.loss VSD --help` lists
the options of that class too, `--model.loss.help VSD` lists them alone. Options override recipes, and later recipes
override earlier ones. `--trainer.X` sets any argument of Lightning's Trainer.
"""


class HelpFormatter(DefaultHelpFormatter):
    """Shows class names without their modules, and short lists of choices."""

    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)
        if action.dest.startswith("trainer."):
            default = re.search(r"default: ([^,)]*)", text)
            text = (action.help or "") + (f" (default: {default[1]})" if default else "")
        text = text.replace("known subclasses: ", "one of: ")
        text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
        return re.sub(r"\b(?:scoredistill|torch)(?:\.\w+)*\.([A-Z]\w+)", r"\1", text)


def tidy(parser: ArgumentParser) -> None:
    """Hide options that users do not need, and replace the help of the trainer's options."""
    for action in parser._actions:
        name = action.dest.removeprefix("trainer.")
        is_class_help = any(option.endswith(".help") for option in action.option_strings)
        if action.dest in ("trainer", "model"):
            action.help = SUPPRESS
        elif action.dest == "config":
            action.help = "a recipe: a YAML file, or the name of one that `scoredistill recipes` lists."
        elif action.dest == "data":
            action.help = "what to generate: a prompt and cameras, labels, or unconditional samples"
        elif name != action.dest:
            action.help = SUPPRESS if is_class_help else TRAINER.get(name, SUPPRESS)
        elif is_class_help:
            action.help = SUPPRESS
    groups = {group.title: group for group in parser._action_groups}
    for title, group in groups.items():
        if title == "Customize every aspect of training via flags":
            group.title = "Lightning's trainer"
        elif "--data" in (option for action in group._group_actions for option in action.option_strings):
            group.title = "Data: what to generate in each batch"
        elif title == "Linked arguments":
            parser._action_groups.remove(group)


def class_help(words: Words, keys: Mapping[str, object], linked: Mapping[str, str]) -> str:
    """A section with the options of each class that the command line names; empty if it names none.

    Args:
        words: the command line; its recipes are read too.
        keys: every key of the command, dotted, with its type.
        linked: keys that follow others.

    Raises:
        UsageError: if a key or a value is wrong.
    """
    checker = Checker(keys, linked)
    for source in words.sources:
        checker.read(source)
    named = {_key(word) for word in words.words if is_setting(word)}
    specs = [each for key, value in checker.known.items() for each in _specs(key, value) if each[0] in named]
    return "\n".join(_section(key, spec, linked) for key, spec in specs)


def _key(word: str) -> str:
    name = word.removeprefix("--").partition("=")[0].removesuffix("+").removesuffix(".class_path")
    return name.replace(".init_args", "")


def _specs(key: str, value: object) -> Iterator[tuple[str, Spec]]:
    """Each class in a value with its key, the outer ones first."""
    if isinstance(value, Spec):
        yield key, value
        for name, each in value.given.items():
            yield from _specs(f"{key}.{name}", each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _specs(key, each)


def _section(key: str, spec: Spec, linked: Mapping[str, str]) -> str:
    parser = RecipeParser(
        usage=argparse.SUPPRESS, description="", add_help=False, formatter_class=HelpFormatter, exit_on_error=False
    )
    skip: set[str | int] = {spec.passed} if spec.passed else set()
    skip |= {name for name in key_types.parameters(spec.kind, spec.passed) if f"{key}.init_args.{name}" in linked}
    added = parser.add_class_arguments(spec.kind, key, fail_untyped=False, skip=skip or None)
    title = f"--{key} {spec.kind.__name__}"
    if not added:
        return f"{title} has no options.\n"
    for action in parser._actions:
        if action.dest == key or action.dest.endswith(".help"):
            action.help = argparse.SUPPRESS
    for group in parser._action_groups:
        group.title = title
    return f"{parser.format_help().strip()}\n"
