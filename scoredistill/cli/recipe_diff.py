"""Whether two resolved recipes make the same thing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scoredistill import recipe_yaml
from scoredistill.cli.stored import read_config

PARTS = ("task", "model", "data", "seed_everything")
"""What decides what a run makes; the rest is how long it trains, where, and who looks on."""


def difference(stored: Path, recipe: str, resolve: Callable[[Path], str]) -> str | None:
    """The first key, dotted, in which a run's recipe and another make different things; None: there is none.

    Args:
        stored: the run's resolved recipe.
        recipe: the other's text, resolved too.
        resolve: resolves a file anew, so that a default that a later version brought is no difference.
    """
    new = _parts(recipe)
    found = _first(_of(read_config(stored)), new)
    if found is None:
        return None
    try:
        return _first(_parts(resolve(stored)), new)
    except (argparse.ArgumentError, TypeError, ValueError):  # of a version whose recipes were others
        return found


def _parts(recipe: str) -> dict[str, Any]:
    return _of(recipe_yaml.load(recipe))


def _of(content: Mapping[str, Any]) -> dict[str, Any]:
    return {part: content.get(part) for part in PARTS}


def _first(a: Any, b: Any, key: str = "") -> str | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in dict.fromkeys([*a, *b]):
            found = _first(a.get(name), b.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if a == b else key
