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
class Shows:
    """Which statistics a report has; one or two seeds are too few for some.

    Args:
        errors: standard errors of means.
        intervals: of means.
        differences: between cells.
        difference_intervals: of those.
        effects: paired effect sizes.
        tests: p-values.
    """

    errors: bool
    intervals: bool
    differences: bool
    difference_intervals: bool
    effects: bool
    tests: bool


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

    @cached_property
    def shows(self) -> Shows:
        """Which statistics there are."""
        means = [row.mean for row in self.rows if row.mean is not None]
        differences = [each.difference for each in self.comparisons if each.difference is not None]
        return Shows(
            errors=any(mean.error is not None for mean in means),
            intervals=any(mean.low is not None for mean in means),
            differences=bool(differences),
            difference_intervals=any(each.low is not None for each in differences),
            effects=any(each.effect is not None for each in differences),
            tests=self.tested > 0,
        )

    def notes(self) -> list[str]:
        """How to read the metrics; only statistics that the tables have are explained."""
        notes = [note for note in (self._about_means(), self._about_comparisons(), self._about_tests()) if note]
        return notes or ["No run has finished: there are no metrics."]

    def _about_means(self) -> str:
        seeds = max((row.mean.n for row in self.rows if row.mean is not None), default=0)
        if seeds == 0:
            return ""
        if not self.shows.errors:
            return "One seed: there are neither standard errors nor intervals."
        said = "Means over seeds ± their standard errors."
        if not self.shows.intervals:
            return f"{said} Fewer than three seeds: there are no intervals."
        return (
            f"{said} The intervals are 95% bootstrap intervals (expanded percentiles). With {seeds} seeds such an "
            f"interval holds the true center at most {1 - 2.0 ** (1 - seeds):.0%} of the time, because it cannot leave "
            "the seeds' own range."
        )

    def _about_comparisons(self) -> str:
        if not self.shows.differences:
            return ""
        said = [
            "A cell is compared with the one that has the baseline's value on one axis and is the same otherwise, seed "
            "by seed."
        ]
        if self.shows.effects:
            said.append("d is the paired effect size (Hedges' correction).")
        if self.shows.tests:
            said.append(
                "p is that of the exact sign-flip test, two-sided, corrected by Holm for "
                + ("one comparison." if self.tested == 1 else f"all {self.tested} comparisons.")
            )
        return " ".join(said)

    def _about_tests(self) -> str:
        """What the tests cannot show with so few seeds."""
        tested = [each.difference for each in self.comparisons if each.p is not None and each.difference is not None]
        least = min((difference.least_p for difference in tested), default=0.0)
        if least * self.tested <= 0.05:
            return ""
        seeds = max(difference.n for difference in tested)
        needed = next(n for n in range(2, 64) if 2.0 ** (1 - n) * self.tested <= 0.05)
        sizes = "sizes and intervals" if self.shows.difference_intervals else "sizes"
        return (
            f"With {seeds} seeds no single p can be below {least:.2g}, and none below .05 once corrected: look at "
            f"{sizes}; {needed} seeds could show more."
        )


def number(value: float | None) -> str:
    """A figure in a few characters."""
    return "" if value is None else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """An interval, or nothing."""
    return "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
