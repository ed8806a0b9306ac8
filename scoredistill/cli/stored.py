"""The recipe that a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from scoredistill.cli.errors import UsageError


def read_config(path: Path) -> dict[str, Any]:
    """A run's resolved recipe.

    Args:
        path: of its config.yaml.

    Raises:
        UsageError: if it cannot be read or is no recipe; the message names it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path} is damaged: it holds no recipe with `model:`")
    return content
