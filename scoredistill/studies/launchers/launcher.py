"""A launcher: what starts the runs of a study, and says when they have ended."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scoredistill.processes import BOUND

LOG = "log.txt"
"""What a run prints, beside its folder."""
PROMPT = "$ scoredistill fit "
"""How each attempt at a run begins in its log, with the options after it."""
MODULE = "scoredistill.cli.study_worker"


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        folder: parent of its run folder, absolute.
        key: of what is asked for.
        words: the options of `fit`.
        directory: the working directory, to which relative paths in recipes refer.
        environment: variables that are set for it.
    """

    folder: Path
    key: str
    words: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a process of its own, which ends when this one does."""
        with self.log() as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(self.folder), self.key, *self.words],
                cwd=self.directory,
                env={**os.environ, BOUND: "1", **self.environment},
                stdin=subprocess.PIPE,  # never written to: its end tells the process that this one has ended
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then tells its runs
            )

    @contextmanager
    def log(self) -> Iterator[int]:
        """Its log, open for what a new attempt says.

        Raises:
            OSError: if it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("ab", buffering=0) as file:
            file.write(f"{PROMPT}{shlex.join(self.words)}\n".encode())
            yield file.fileno()

    def run(self) -> int:
        """Start it and wait: its exit code. The same for all launchers, wherever it is called."""
        return self.start().wait()


class Launched(ABC):
    """A run that was started."""

    @abstractmethod
    def code(self) -> int | None:
        """Its exit code; None while it runs.

        Raises:
            RuntimeError: if what it ran on was lost.
        """

    @abstractmethod
    def stop(self) -> None:
        """Tell it to end; `code` says when it has."""


class Launcher(ABC):
    """Starts runs. A subclass implements `launch`."""

    slots: int
    """How many runs are under way at most."""

    @abstractmethod
    def launch(self, job: Job, slot: int) -> Launched:
        """Start a run, or ask for it to be started.

        Args:
            job: the run.
            slot: which of the slots it takes, from 0 on.

        Raises:
            OSError, RuntimeError: if it cannot be started.
        """

    def close(self) -> None:  # noqa: B027  # most have nothing to give back
        """Give back what was taken for launching."""
