"""Options of `fit` as the recipe that they make, and a short key of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from scoredistill import recipe_yaml
from scoredistill.cli.argv import Words, read_words
from scoredistill.cli.command_line import CommandLine
from scoredistill.cli.sources import sources_of

WHERE = ("output", "checkpoint_every")
"""What does not decide what a run makes."""


class _Parsed(CommandLine):
    """The options of a run, parsed, and nothing built."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass


class Resolver:
    """Parses options again and again, by one parser for each task, which takes seconds to build."""

    def __init__(self) -> None:
        self._lines: dict[str, CommandLine] = {}

    def key(self, words: Sequence[str]) -> str:
        """What a run under these options is known by: the same only where the resolved recipes are, and the files of
        the user's own that they name, code and data.

        Args:
            words: of `fit`.

        Raises:
            UsageError: if `fit` would not take them.
        """
        read = read_words(list(words))
        recipe = recipe_yaml.load(self._recipe(read))
        parts = {name: value for name, value in recipe.items() if name not in WHERE}
        resolved = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return f"{resolved} {sources_of(parts)}".strip()

    def _recipe(self, read: Words) -> str:
        line = self._lines.get(read.task)
        if line is None:
            line = self._lines[read.task] = _Parsed("fit", read)
        else:
            line.parse_arguments(line.parser, read.words)
        return line._as_recipe(line.config)
