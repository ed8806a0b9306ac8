"""Small JSON files of a study, which a process may have been killed beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_note(path: Path) -> dict[str, Any]:
    """A JSON file's content; nothing where there is no such file, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
