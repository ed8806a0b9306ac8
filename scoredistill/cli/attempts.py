"""Attempts at a run: what was requested, and which run folder finished it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill.cli.sources import changed_files
from scoredistill.files import load_json, write_json_atomically
from scoredistill.training.run_folder import RunFolder, numbered

COPY = "attempt.json"
"""Copy of the note in the folder of a finished run, in case the file with all notes is damaged."""


@dataclass(frozen=True)
class Attempt:
    """A requested run of `fit`, with the stored note about earlier attempts.

    Args:
        request: the requested run, as JSON; a different request is another attempt. `key` identifies the recipe.
        note: the stored note; empty: none.
        runs: parent of the run folders.
    """

    request: Mapping[str, Any]
    note: Mapping[str, Any]
    runs: Path

    @property
    def _same(self) -> bool:
        return all(self.note.get(key) == value for key, value in self.request.items())

    @property
    def finished(self) -> str | None:
        """The run that finished the same request, or None."""
        run = self.note.get("run") if self._same else None
        folder = None if run is None else self.runs / str(run)
        return str(folder) if folder is not None and RunFolder(folder).config.is_file() else None

    @property
    def _before(self) -> str | None:
        # A run of the same request is resumed; a run that existed before belongs to another request.
        return self.note.get("after") if self._same else self.newest

    @property
    def newest(self) -> str | None:
        """The newest run that has a checkpoint, or None."""
        run = RunFolder.newest(self.runs)
        return None if run is None else str(run.path)

    @property
    def goes_on(self) -> bool:
        """Whether a run of the same request was stopped, so that it can be resumed."""
        return self.newest != self._before

    @property
    def changed(self) -> list[str]:
        """The files that changed since the earlier attempt, if nothing else changed."""
        earlier, key = self.note.get("key"), self.request.get("key")
        return changed_files(earlier, key) if isinstance(earlier, str) and isinstance(key, str) else []

    @property
    def begun(self) -> dict[str, Any]:
        """The note to store before the run starts."""
        return {**self.request, "after": self._before}

    def ended(self, run: str | Path) -> dict[str, Any]:
        """The note to store after the run has finished, with the run's number, so that the folder can be moved."""
        note = {**self.request, "run": Path(run).name}
        write_json_atomically(Path(run) / COPY, note)
        return note


def read_note(path: Path, runs: Path) -> dict[str, Any]:
    """Read the note of an attempt.

    Args:
        path: of the file; if it is damaged, a warning is printed and the copy of the newest run is read.
        runs: parent of the run folders.

    Returns:
        The note; empty if there is none.
    """
    try:
        return load_json(path, dict)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        sys.stderr.write(f"warning: {error}\n")
        return copied_note(runs)


def copied_note(runs: Path) -> dict[str, Any]:
    """The note in the folder of the newest run that has one; empty if there is none.

    Args:
        runs: parent of the run folders.
    """
    for run in reversed(numbered(runs)):
        try:
            return load_json(run / COPY, dict)
        except (OSError, ValueError):
            continue
    return {}
