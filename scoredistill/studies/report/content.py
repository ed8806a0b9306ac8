"""What a report says, however it is written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from scoredistill.studies.comparison import Comparison, Row, comparisons_of, rows_of
from scoredistill.studies.results import Results

COSTS = {
    "seconds": "training, s",
    "steps": "generator steps",
    "network_calls": "network calls",
    "network_rows": "samples in them",
    "memory_mb": "memory, MB",
    "gpu_memory_mb": "GPU memory, MB",
}


@dataclass(frozen=True)
class Content:
    """A study's results with their statistics.

    Args:
        results: of the study.
        rows: every figure of every cell.
        comparisons: every figure of every cell against its baseline.
    """

    results: Results
    rows: list[Row]
    comparisons: list[Comparison]

    @classmethod
    def of(cls, folder: str | Path) -> Content:
        """Read and compute.

        Raises:
            OSError: if there is no study in the folder.
            ValueError: if its record cannot be read.
        """
        results = Results(folder)
        return cls(results, rows_of(results), comparisons_of(results))

    def row(self, cell: str, metric: str) -> Row:
        """One of the rows."""
        return next(row for row in self.rows if (row.cell, row.metric) == (cell, metric))

    def compared(self, cell: str, metric: str) -> list[Comparison]:
        """A cell's comparisons, axis by axis."""
        return [each for each in self.comparisons if (each.cell, each.metric) == (cell, metric)]

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """By cell, means over its finished runs of what they cost."""
        found = {}
        for cell in self.results.cells:
            known = self.results.costs(cell)
            names = [name for name in COSTS if any(name in cost for cost in known)]
            found[cell] = {name: fmean(cost[name] for cost in known if name in cost) for name in names}
        return found

    @property
    def tested(self) -> int:
        """How many p-values the correction is for."""
        return sum(each.p is not None for each in self.comparisons)

    @property
    def state(self) -> str:
        """How many runs there are."""
        runs = self.results.record.runs
        words = [f"{sum(run.state == 'done' for run in runs)} of {len(runs)} runs"]
        failed = sum(run.state == "failed" for run in runs)
        return ", ".join([*words, *([f"{failed} failed"] if failed else [])])

    @property
    def command(self) -> str:
        """What makes the study again."""
        source, folder = self.results.record.source, str(self.results.folder)
        return shlex.join(["scoredistill", "ablate", source, "--output", folder])

    def notes(self) -> list[str]:
        """How the figures are to be read."""
        seeds = len(self.results.record.seeds)
        notes = ["Fewer than three seeds: there are no intervals."]
        if seeds > 2:
            notes = [
                "Means over seeds, with 95% bootstrap intervals (expanded percentiles). With "
                f"{seeds} seeds such an interval holds the true centre at most {1 - 2.0 ** (1 - seeds):.0%} of the "
                "time, for it cannot leave the seeds' own range."
            ]
        notes.append(
            "A cell is compared with the one that has the baseline's value on one axis and is the same otherwise, seed "
            "by seed. d is the paired effect size (Hedges' correction), p that of the exact sign-flip test, two-sided, "
            f"corrected by Holm for all {self.tested} comparisons."
        )
        least = min((each.difference.least_p for each in self.comparisons if each.difference), default=1.0)
        if self.tested and least * self.tested > 0.05:
            needed = next(n for n in range(2, 64) if 2.0 ** (1 - n) * self.tested <= 0.05)
            notes.append(
                f"With {seeds} seeds no single p can be below {least:.2g}, and none below .05 once corrected: look at "
                f"sizes and intervals; {needed} seeds could show more."
            )
        return notes


def number(value: float | None) -> str:
    """A figure in a few characters."""
    return "" if value is None else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """An interval, or nothing."""
    return "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
