"""Runs the unfinished runs of a study and keeps its record up to date."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scoredistill.files import reason
from scoredistill.studies.launchers.launcher import LOG, PROMPT, Entry, Job, Launched, Launcher
from scoredistill.studies.record import RunRecord, State, StudyRecord
from scoredistill.studies.study import Cell, Study

PAUSE = 0.2
"""Seconds between two polls of the active runs."""

Finished = Callable[[Path, str], str | None]
"""Maps a run's folder and key to the number of its finished run folder, or to None."""


@dataclass
class Run:
    """The current state of one run.

    Args:
        cell: its cell.
        seed: its seed.
        folder: parent of its run folder.
        state: see `RunRecord`.
        number: number of its finished run folder.
        message: why it failed.
        began, ended: times by `time.monotonic`; 0: not in this session.
    """

    cell: Cell
    seed: int
    folder: Path
    state: State = "waiting"
    number: str | None = None
    message: str | None = None
    began: float = 0.0
    ended: float = 0.0


class Runner:
    """Executes every unfinished run. A failed run does not stop the others.

    Args:
        study: the study.
        cells: its cells.
        folder: its folder.
        entry: executes one run in its process; launchers receive it with each job.
        finished: returns the finished run folder of a run.
        update: called with all runs at every poll.
    """

    def __init__(
        self,
        study: Study,
        cells: Sequence[Cell],
        folder: Path,
        entry: Entry,
        finished: Finished,
        update: Callable[[Sequence[Run]], None],
    ) -> None:
        self.study = study
        self.folder = folder
        self.entry = entry
        self.finished = finished
        self.update = update
        self.runs = [Run(cell, seed, folder / cell.folder(seed)) for cell in cells for seed in study.seeds]
        for run in self.runs:
            self._settle(run, None)
        self.unwritten: OSError | None = None

    def run(self, launcher: Launcher) -> None:
        """Execute all unfinished runs.

        Args:
            launcher: starts the runs; it is closed at the end.

        Raises:
            BaseException: whatever interrupts this method, after all active runs have been stopped.
        """
        waiting = [run for run in self.runs if run.state == "waiting"]
        free = list(range(launcher.slots))
        active = dict[int, tuple[Run, Launched]]()
        try:
            self.record()
            while waiting or active:
                while waiting and free:
                    self._launch(waiting.pop(0), free, active, launcher)
                for slot, (run, launched) in list(active.items()):
                    if self._ended(run, launched):
                        del active[slot]
                        free.insert(0, slot)
                self.update(self.runs)
                time.sleep(PAUSE if active else 0)
        finally:
            self._stop(active.values())
            launcher.close()
            self.record()
            self.update(self.runs)

    def _launch(self, run: Run, free: list[int], active: dict[int, tuple[Run, Launched]], launcher: Launcher) -> None:
        cell, seed = run.cell, run.seed
        job = Job(run.folder.absolute(), cell.key_under(seed), cell.words_under(seed), Path.cwd(), self.entry)
        run.state = "running"
        run.began = time.monotonic()
        try:
            launched = launcher.launch(job, free[0])
        except RuntimeError as error:
            run.state = "failed"
            run.message = str(error)
        except OSError as error:  # its folder or log cannot be written, as on a full disk
            run.state = "failed"
            run.message = reason(error, run.folder)
        else:
            active[free.pop(0)] = run, launched
        if run.state == "failed":
            run.ended = time.monotonic()
        self.record()

    def _stop(self, active: Collection[tuple[Run, Launched]]) -> None:
        """Stop all active runs, and only then wait for them: each may be in a long step."""
        for _, launched in active:
            with suppress(RuntimeError):  # the machine or worker it ran on was lost
                launched.stop()
        for run, launched in active:
            with suppress(RuntimeError):
                while launched.code() is None:
                    time.sleep(PAUSE)
            self._settle(run, None)

    def _ended(self, run: Run, launched: Launched) -> bool:
        try:
            code = launched.code()
        except RuntimeError as error:
            run.state = "failed"
            run.message = str(error)
        else:
            if code is None:
                return False
            self._settle(run, code)
        run.ended = time.monotonic()
        self.record()
        return True

    def _settle(self, run: Run, code: int | None) -> None:
        """Set the state of an inactive run from its folder.

        Args:
            run: the run.
            code: its exit code; None if it did not exit in this session.
        """
        run.number = self.finished(run.folder, run.cell.key_under(run.seed))
        run.state = "done" if run.number is not None else "waiting" if code is None else "failed"
        run.message = _message(run.folder / LOG, code or 0) if run.state == "failed" else None

    def record(self) -> None:
        """Write the study's record. If that fails, the runs continue, and the next change writes it again."""
        study = self.study
        record = StudyRecord(
            name=study.path.stem,
            source=str(study.path),
            axes={axis.name: [value.name for value in axis.values] for axis in study.axes},
            seeds=study.seeds,
            baseline=study.baseline,
            metrics=study.metrics,
            runs=[self._record_of(run) for run in self.runs],
        )
        try:
            record.write(self.folder)
        except OSError as error:
            if self.unwritten is None:
                sys.stderr.write(f"warning: {reason(error, self.folder)}; the runs continue\n")
            self.unwritten = error
        else:
            self.unwritten = None

    def _record_of(self, run: Run) -> RunRecord:
        folder = run.cell.folder(run.seed)
        number = None if run.number is None else f"{folder}/{run.number}"
        return RunRecord(run.cell.name, run.cell.settings, run.seed, run.state, folder, number, run.message)


def _message(log: Path, code: int) -> str:
    """Why a run failed: the error message of its last attempt, or else the last line of its log."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    begun = max((number for number, line in enumerate(lines) if line.startswith(PROMPT)), default=-1)
    output = [line.strip() for line in lines[begun + 1 :] if line.strip()]
    errors = [re.sub(r"^scoredistill fit: ", "", line) for line in output if line.startswith("scoredistill fit: ")]
    return (errors or output or [f"ended with exit code {code} and no output"])[-1]
