"""The recipe that a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoredistill import recipe_library
from scoredistill.cli.errors import UsageError


def read_config(path: Path) -> dict[str, Any]:
    """A run's resolved recipe.

    Args:
        path: of its config.yaml.

    Raises:
        UsageError: if it cannot be read or is no recipe; the message names it.
    """
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path} is damaged: it holds no recipe with `model:`")
    return content
