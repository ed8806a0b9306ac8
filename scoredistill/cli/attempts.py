"""Work that is resumed where it was stopped: what was asked for, and the run that has finished it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill.cli.sources import changed_files
from scoredistill.files import load_json, write_json_atomically
from scoredistill.training.run_folder import RunFolder, numbered

COPY = "asked.json"
"""In the folder of a run that has finished: the note of its attempt, should the file that has all notes be damaged."""


@dataclass(frozen=True)
class Attempt:
    """Something to be run by `fit`, and what a JSON file knows of earlier attempts at it.

    Args:
        asked: what is asked for, as JSON has it; something else is another attempt. `key` is what it is known by.
        known: the file's note, empty where there is none.
        runs: parent of the run folders.
    """

    asked: Mapping[str, Any]
    known: Mapping[str, Any]
    runs: Path

    @property
    def _same(self) -> bool:
        return all(self.known.get(key) == value for key, value in self.asked.items())

    @property
    def finished(self) -> str | None:
        """The run that has finished the very same, or None."""
        run = self.known.get("run") if self._same else None
        found = None if run is None else self.runs / str(run)
        return str(found) if found is not None and RunFolder(found).config.is_file() else None

    @property
    def _before(self) -> str | None:
        # A run of the very same is resumed; one that was there before is another's.
        return self.known.get("after") if self._same else self.newest

    @property
    def newest(self) -> str | None:
        """The newest run that has a checkpoint, or None."""
        run = RunFolder.newest(self.runs)
        return None if run is None else str(run.path)

    @property
    def goes_on(self) -> bool:
        """Whether a run of the very same has been stopped, and is to be resumed."""
        return self.newest != self._before

    @property
    def changed(self) -> list[str]:
        """The files that have changed since the same was run, where nothing else has."""
        earlier, key = self.known.get("key"), self.asked.get("key")
        return changed_files(earlier, key) if isinstance(earlier, str) and isinstance(key, str) else []

    @property
    def begun(self) -> dict[str, Any]:
        """The note to be kept before it is run."""
        return {**self.asked, "after": self._before}

    def ended(self, run: str | Path) -> dict[str, Any]:
        """The note to be kept once a run has finished it: its number, so that the folder can be moved."""
        note = {**self.asked, "run": Path(run).name}
        write_json_atomically(Path(run) / COPY, note)
        return note


def read_note(path: Path, runs: Path) -> dict[str, Any]:
    """The note of an attempt.

    Args:
        path: of the file; where it is damaged, a warning says so, and the newest run's own copy is taken.
        runs: parent of the run folders.

    Returns:
        The note, empty where there is none.
    """
    try:
        return load_json(path, dict)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        sys.stderr.write(f"warning: {error}\n")
        return copied_note(runs)


def copied_note(runs: Path) -> dict[str, Any]:
    """The note that the newest run with one has kept, or nothing.

    Args:
        runs: parent of the run folders.
    """
    for run in reversed(numbered(runs)):
        try:
            return load_json(run / COPY, dict)
        except (OSError, ValueError):
            continue
    return {}
