"""Reads the recipe in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoredistill import recipe_library
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
