"""Work that goes on where it was stopped: what was asked for, and the run that has finished it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill.training.run_folder import RunFolder


@dataclass(frozen=True)
class Attempt:
    """Something to be run by `fit`, and what a JSON file knows of earlier attempts at it.

    Args:
        asked: what is asked for, as JSON has it; something else is another attempt.
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
        # A run of the very same is gone on with; one that was there before is another's.
        return self.known.get("after") if self._same else self.newest

    @property
    def newest(self) -> str | None:
        """The newest run that has a checkpoint, or None."""
        run = RunFolder.newest(self.runs)
        return None if run is None else str(run.path)

    @property
    def goes_on(self) -> bool:
        """Whether a run of the very same has been stopped, and is to be gone on with."""
        return self.newest != self._before

    @property
    def begun(self) -> dict[str, Any]:
        """The note to be kept before it is run."""
        return {**self.asked, "after": self._before}

    def ended(self, run: str | Path) -> dict[str, Any]:
        """The note to be kept once a run has finished it: its number, so that the folder can be moved."""
        return {**self.asked, "run": Path(run).name}
