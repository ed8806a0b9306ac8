"""The launcher interface: starting the runs of a study and reporting when they end."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scoredistill.processes import BOUND

LOG = "log.txt"
"""Log file with the output of a run, next to its run folders."""
PROMPT = "$ scoredistill fit "
"""First words of each attempt in the log, followed by its options."""

Entry = Callable[[Sequence[str]], int]
"""A function that executes one run, called with `Job.arguments`, and returns its exit code. Its module does the same
when it is executed as a script (`python -m`)."""


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        folder: parent of its run folder, absolute.
        key: identifies the resolved recipe and seed.
        words: the options of `fit`.
        directory: the working directory, which relative paths in recipes refer to.
        entry: executes the run in its process.
        environment: environment variables added for the run.
    """

    folder: Path
    key: str
    words: Sequence[str]
    directory: Path
    entry: Entry
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """What `entry` is called with: the folder, the key and the options of `fit`."""
        return [str(self.folder), self.key, *self.words]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run in a separate process, which ends when this one does."""
        with self.log() as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", self.entry.__module__, *self.arguments],
                cwd=self.directory,
                env={**os.environ, BOUND: "1", **self.environment},
                stdin=subprocess.PIPE,  # never written to; the process detects by its end that this one has ended
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops its runs
            )

    @contextmanager
    def log(self) -> Iterator[int]:
        """The file descriptor of the log, opened for a new attempt.

        Raises:
            OSError: if the log cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("ab", buffering=0) as file:
            file.write(f"{PROMPT}{shlex.join(self.words)}\n".encode())
            yield file.fileno()

    def run(self) -> int:
        """Start the run, wait for it and return its exit code; called on the machine that executes it."""
        return self.start().wait()


class Launched(ABC):
    """A run that was started."""

    @abstractmethod
    def code(self) -> int | None:
        """The exit code; None while it runs.

        Raises:
            RuntimeError: if the machine or worker it ran on was lost.
        """

    @abstractmethod
    def stop(self) -> None:
        """Request its end; `code` returns a number once it has ended."""


class Launcher(ABC):
    """Starts runs. A subclass implements `launch`."""

    slots: int
    """Largest number of concurrent runs."""

    @abstractmethod
    def launch(self, job: Job, slot: int) -> Launched:
        """Start a run, or submit it.

        Args:
            job: the run.
            slot: index of the slot it occupies, from 0 on.

        Raises:
            OSError, RuntimeError: if it cannot be started.
        """

    def close(self) -> None:  # noqa: B027  # most launchers hold no resources
        """Release the launcher's resources."""
