"""How a study stands, for whoever waits for it: a table on a terminal, a line for each ended run elsewhere."""

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
"""Seconds between two pictures of the table."""
TAIL = 2000
"""Bytes of a log's end, in which its last line about the step is."""
MARKS = {"waiting": "[dim]·[/]", "done": "[green]done[/]", "failed": "[red]failed[/]"}


class Display:
    """Shows runs; a context.

    Args:
        slots: how many run at a time.
        console: to show them on.
    """

    def __init__(self, slots: int, console: Console | None = None) -> None:
        self.slots, self.console = slots, console or Console(highlight=False)
        self._began, self._shown = time.monotonic(), 0.0
        self._said: set[int] = set()
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, runs: Sequence[Run]) -> None:
        """Show how the runs stand."""
        now = time.monotonic()
        if self._live is None:
            self._say(runs)
        elif now - self._shown >= EVERY or not any(run.state == "running" for run in runs):
            self._shown = now
            self._live.update(self.table(runs), refresh=True)

    def table(self, runs: Sequence[Run]) -> Table:
        """A row a cell, a column a seed."""
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

    def _say(self, runs: Sequence[Run]) -> None:
        over = {number: run for number, run in enumerate(runs) if run.state in ("done", "failed")}
        self._said |= {number for number, run in over.items() if not run.ended}  # of an earlier command
        for number, run in over.items():
            if number not in self._said:
                self._said.add(number)
                what = "done" if run.state == "done" else f"failed: {run.message}"
                took = _duration(run.ended - run.began)
                line = f"{len(self._said)}/{len(runs)} {run.cell.name} seed {run.seed} {what} ({took})"
                self.console.print(line, soft_wrap=True, markup=False)


def _state(run: Run) -> str:
    return MARKS[run.state] if run.state in MARKS else _step(run.folder / LOG)


def _step(log: Path) -> str:
    """Where a run's log says that it is."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            attempt = file.read().rpartition(PROMPT.encode())[2]
            said = re.findall(rb"step (\d+)/(\d+)", attempt)
    except OSError:
        said = []
    return f"{int(said[-1][0])}/{int(said[-1][1])}" if said else "starting"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
