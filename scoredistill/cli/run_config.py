"""A run's config.yaml: reading it, and comparing it with another resolved recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scoredistill import recipe_library, recipe_yaml
from scoredistill.cli.errors import UsageError

END = "...\n"
"""YAML's end of a document, the last line of a run's config.yaml. Without it the file is truncated."""


def require_complete(path: Path) -> None:
    """Refuse a truncated config.yaml, which may still be valid YAML, but of another recipe.

    Args:
        path: of config.yaml.

    Raises:
        UsageError: if its last line is missing.
    """
    if path.is_file() and not path.read_bytes().rstrip().endswith(END.strip().encode()):
        raise UsageError(
            f"{path} is damaged: its last line, {END.strip()}, is missing: copy the run again, or add it if complete"
        )


def read_config(path: Path) -> dict[str, Any]:
    """A run's resolved recipe.

    Args:
        path: of its config.yaml.

    Raises:
        UsageError: if it cannot be read or is not a recipe; the message names the file.
    """
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    require_complete(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path} is damaged: it has no recipe with `model:`")
    return content


PARTS = ("task", "model", "data", "seed_everything")
"""The parts that decide the result of a run; the others set its length, place, metrics and pictures."""


def difference(stored: Path, recipe: str, resolve: Callable[[Path], str]) -> str | None:
    """The first key, dotted, in which two recipes differ in their result, or None.

    Args:
        stored: the run's resolved recipe.
        recipe: the text of the other one, also resolved.
        resolve: resolves a file again, so that a new default of a later version is not a difference.
    """
    new = _parts(recipe)
    key = _first(_of(read_config(stored)), new)
    if key is None:
        return None
    try:
        return _first(_parts(resolve(stored)), new)
    except (argparse.ArgumentError, TypeError, ValueError):  # a recipe of a version with other keys
        return key


def _parts(recipe: str) -> dict[str, Any]:
    return _of(recipe_yaml.load(recipe))


def _of(content: Mapping[str, Any]) -> dict[str, Any]:
    return {part: content.get(part) for part in PARTS}


def _first(a: Any, b: Any, key: str = "") -> str | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in dict.fromkeys([*a, *b]):
            first = _first(a.get(name), b.get(name), f"{key}.{name}" if key else name)
            if first is not None:
                return first
        return None
    return None if a == b else key
