"""Runs what is left of a study, and keeps a record of how it stands."""

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
from scoredistill.studies.cells import Cell
from scoredistill.studies.launchers.launcher import LOG, PROMPT, Job, Launched, Launcher
from scoredistill.studies.record import RunRecord, State, StudyRecord
from scoredistill.studies.study import Study

PAUSE = 0.2
"""Seconds between looks at what is running."""

Finished = Callable[[Path, str], str | None]
"""From a run's folder and key to the number of its finished run folder, or None."""


@dataclass
class Run:
    """One run as it stands.

    Args:
        cell: whose it is.
        seed: of it.
        folder: parent of its run folder.
        state: see `RunRecord`.
        number: of its finished run folder.
        message: why it failed.
        began, ended: when, on the clock of `time.monotonic`; 0: not in this session.
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
    """Runs every run that has not finished; one that fails leaves the others alone.

    Args:
        study: what is asked for.
        cells: of it.
        folder: of everything.
        finished: says which runs have finished.
        look: is called with all runs again and again.
    """

    def __init__(
        self,
        study: Study,
        cells: Sequence[Cell],
        folder: Path,
        finished: Finished,
        look: Callable[[Sequence[Run]], None],
    ) -> None:
        self.study, self.folder, self.finished, self.look = study, folder, finished, look
        self.runs = [Run(cell, seed, folder / cell.folder(seed)) for cell in cells for seed in study.seeds]
        for run in self.runs:
            self._settle(run, None)
        self.unwritten: OSError | None = None

    def run(self, launcher: Launcher) -> None:
        """Run them to the end.

        Args:
            launcher: starts them; it is closed at the end.

        Raises:
            BaseException: whatever interrupts it, after everything under way has been told to end.
        """
        waiting = [run for run in self.runs if run.state == "waiting"]
        free, active = list(range(launcher.slots)), dict[int, tuple[Run, Launched]]()
        try:
            self.record()
            while waiting or active:
                while waiting and free:
                    self._launch(waiting.pop(0), free, active, launcher)
                for slot, (run, launched) in list(active.items()):
                    if self._ended(run, launched):
                        del active[slot]
                        free.insert(0, slot)
                self.look(self.runs)
                time.sleep(PAUSE if active else 0)
        finally:
            self._stop(active.values())
            launcher.close()
            self.record()
            self.look(self.runs)

    def _launch(self, run: Run, free: list[int], active: dict[int, tuple[Run, Launched]], launcher: Launcher) -> None:
        cell, seed = run.cell, run.seed
        job = Job(run.folder.absolute(), cell.key_under(seed), cell.words_under(seed), Path.cwd())
        run.state, run.began = "running", time.monotonic()
        try:
            launched = launcher.launch(job, free[0])
        except RuntimeError as error:
            run.state, run.message = "failed", str(error)
        except OSError as error:  # no room for its folder or its log
            run.state, run.message = "failed", reason(error, run.folder)
        else:
            active[free.pop(0)] = run, launched
        if run.state == "failed":
            run.ended = time.monotonic()
        self.record()

    def _stop(self, active: Collection[tuple[Run, Launched]]) -> None:
        """Tell all of them to end before waiting for the first: each may be in a long step."""
        for _, launched in active:
            with suppress(RuntimeError):  # what it ran on has gone
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
            run.state, run.message = "failed", str(error)
        else:
            if code is None:
                return False
            self._settle(run, code)
        run.ended = time.monotonic()
        self.record()
        return True

    def _settle(self, run: Run, code: int | None) -> None:
        """What became of a run that is not under way: its folder says it."""
        run.number = self.finished(run.folder, run.cell.key_under(run.seed))
        run.state = "done" if run.number is not None else "waiting" if code is None else "failed"
        run.message = _message(run.folder / LOG, code or 0) if run.state == "failed" else None

    def record(self) -> None:
        """Write how the study stands. Where that fails, the runs go on, and it is tried again with the next change."""
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
                sys.stderr.write(f"warning: {reason(error, self.folder)}; the runs go on\n")
            self.unwritten = error
        else:
            self.unwritten = None

    def _record_of(self, run: Run) -> RunRecord:
        folder = run.cell.folder(run.seed)
        number = None if run.number is None else f"{folder}/{run.number}"
        return RunRecord(run.cell.name, run.cell.settings, run.seed, run.state, folder, number, run.message)


def _message(log: Path, code: int) -> str:
    """Why a run failed: the message that its last attempt ended with, or else the last thing that it said."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    begun = max((number for number, line in enumerate(lines) if line.startswith(PROMPT)), default=-1)
    said = [line.strip() for line in lines[begun + 1 :] if line.strip()]
    own = [re.sub(r"^scoredistill fit: ", "", line) for line in said if line.startswith("scoredistill fit: ")]
    return (own or said or [f"ended with code {code} without a word"])[-1]
