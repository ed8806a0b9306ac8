"""Progress display of a study: a table on a terminal, otherwise one line per ended run."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scoredistill.studies.launchers.launcher import LOG, PROMPT
from scoredistill.studies.runner import Run

EVERY = 1.0
"""Seconds between two updates of the table."""
TAIL = 2000
"""Number of bytes at the end of a log that are searched for the last step."""
MARKS = {"waiting": "[dim]·[/]", "done": "[green]done[/]", "failed": "[red]failed[/]"}


class Display:
    """Displays the runs' states. It is a context manager.

    Args:
        slots: number of concurrent runs.
        console: the console to print on; None: standard output.
    """

    def __init__(self, slots: int, console: Console | None = None) -> None:
        self.slots = slots
        self.console = console or Console(highlight=False)
        self._began = time.monotonic()
        self._updated = 0.0
        self._reported: set[int] = set()
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, runs: Sequence[Run]) -> None:
        """Display the current states."""
        now = time.monotonic()
        if self._live is None:
            self._report_ended(runs)
        elif now - self._updated >= EVERY or not any(run.state == "running" for run in runs):
            self._updated = now
            self._live.update(self.table(runs), refresh=True)

    def table(self, runs: Sequence[Run]) -> Table:
        """The table, with one row per cell and one column per seed."""
        seeds = list(dict.fromkeys(run.seed for run in runs))
        table = Table("cell", *(f"seed {seed}" for seed in seeds), title=self._summary(runs))
        for name in dict.fromkeys(run.cell.name for run in runs):
            known = {run.seed: run for run in runs if run.cell.name == name}
            table.add_row(Text(name), *(_state(known[seed]) for seed in seeds))
        return table

    def _summary(self, runs: Sequence[Run]) -> str:
        done = [run for run in runs if run.state in ("done", "failed")]
        timed = [run.ended - run.began for run in done if run.ended]
        words = [f"{len(done)} of {len(runs)} runs", f"{_duration(time.monotonic() - self._began)}"]
        left = sum(run.state in ("waiting", "running") for run in runs)
        if timed and left:
            words.append(f"about {_duration(sum(timed) / len(timed) * left / min(self.slots, left))} left")
        return ", ".join(words)

    def _report_ended(self, runs: Sequence[Run]) -> None:
        ended = {number: run for number, run in enumerate(runs) if run.state in ("done", "failed")}
        self._reported |= {number for number, run in ended.items() if not run.ended}  # by an earlier command
        for number, run in ended.items():
            if number not in self._reported:
                self._reported.add(number)
                outcome = "done" if run.state == "done" else f"failed: {run.message}"
                duration = _duration(run.ended - run.began)
                line = f"{len(self._reported)}/{len(runs)} {run.cell.name} seed {run.seed} {outcome} ({duration})"
                self.console.print(line, soft_wrap=True, markup=False)


def _state(run: Run) -> str:
    return MARKS[run.state] if run.state in MARKS else _step(run.folder / LOG)


def _step(log: Path) -> str:
    """The last step in a run's log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            attempt = file.read().rpartition(PROMPT.encode())[2]
            steps = re.findall(rb"step (\d+)/(\d+)", attempt)
    except OSError:
        steps = []
    return f"{int(steps[-1][0])}/{int(steps[-1][1])}" if steps else "starting"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
