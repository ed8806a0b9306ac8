"""The options of classes that a command line names, shown by --help."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from scoredistill.cli import kinds
from scoredistill.cli.argv import Words, is_setting
from scoredistill.cli.checking import Checker, Spec
from scoredistill.cli.parsing import HelpFormatter
from scoredistill.cli.recipe_parser import RecipeParser


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
    skip |= {name for name in kinds.parameters(spec.kind, spec.passed) if f"{key}.init_args.{name}" in linked}
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
