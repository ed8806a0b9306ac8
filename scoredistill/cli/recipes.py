"""Resolved recipes: read from a run, and compared."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scoredistill import recipe_library, recipe_yaml
from scoredistill.cli.errors import UsageError

PARTS = ("model", "data", "seed_everything")
"""What decides what a run makes; the rest is how long it trains, where, and who looks on."""


def read_recipe(path: Path) -> dict[str, Any]:
    """The resolved recipe of a run.

    Args:
        path: its config.yaml.

    Raises:
        UsageError: if it cannot be read, or is no recipe.
    """
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path} is not the recipe of a run: it has no `model:`")
    return content


def difference(stored: Path, recipe: str, resolve: Callable[[Path], str]) -> str | None:
    """The first key, dotted, in which a run's recipe and another make different things; None: there is none.

    Args:
        stored: the run's resolved recipe.
        recipe: the other's text, resolved too.
        resolve: resolves a file anew, so that a default that a later version brought is no difference.
    """
    new = _parts(recipe)
    found = _first(_parts(stored.read_text(encoding="utf-8")), new)
    if found is None:
        return None
    try:
        return _first(_parts(resolve(stored)), new)
    except (argparse.ArgumentError, TypeError, ValueError):  # of a version whose recipes were others
        return found


def _parts(recipe: str) -> dict[str, Any]:
    content = recipe_yaml.load(recipe)
    return {part: content.get(part) for part in PARTS}


def _first(a: Any, b: Any, key: str = "") -> str | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in dict.fromkeys([*a, *b]):
            found = _first(a.get(name), b.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if a == b else key
