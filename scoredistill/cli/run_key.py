"""The resolved recipe of options of `fit`, and a short key of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from scoredistill import recipe_yaml
from scoredistill.cli.argv import Words, read_words
from scoredistill.cli.attempts import sources_of
from scoredistill.cli.command_line import CommandLine

KEYS_WITHOUT_EFFECT = ("output", "checkpoint_every")
"""Keys that do not change the result of a run."""


class _Parsed(CommandLine):
    """The parsed options of a run, without building any object."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass


class Resolver:
    """Resolves options repeatedly with one parser per task, because building a parser takes seconds."""

    def __init__(self) -> None:
        self._lines: dict[str, CommandLine] = {}

    def key(self, words: Sequence[str]) -> str:
        """The key of a run with these options. Two keys are equal if the resolved recipes are, and all files of the
        user that they name, code and data.

        Args:
            words: options of `fit`.

        Raises:
            UsageError: if `fit` would refuse them.
        """
        read = read_words(list(words))
        recipe = recipe_yaml.load(self._recipe(read))
        parts = {name: value for name, value in recipe.items() if name not in KEYS_WITHOUT_EFFECT}
        resolved = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return f"{resolved} {sources_of(parts)}".strip()

    def _recipe(self, read: Words) -> str:
        line = self._lines.get(read.task)
        if line is None:
            line = self._lines[read.task] = _Parsed("fit", read)
        else:
            line.parse_arguments(line.parser, read.words)
        return line._as_recipe(line.config)
