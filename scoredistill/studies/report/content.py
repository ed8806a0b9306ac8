"""The content of a report, shared by its formats."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from scoredistill.studies.results import Comparison, Results, Row, comparisons_of, rows_of

COSTS = {
    "seconds": "training, s",
    "steps": "generator steps",
    "network_calls": "network calls",
    "network_rows": "samples in them",
    "memory_mb": "memory, MB",
    "gpu_memory_mb": "GPU memory, MB",
}


@dataclass(frozen=True)
class Available:
    """Which statistics a report contains; some need more than one or two seeds.

    Args:
        errors: standard errors of means.
        intervals: intervals of means.
        differences: differences between cells.
        difference_intervals: intervals of the differences.
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
        results: results of the study.
        rows: every metric of every cell.
        comparisons: every metric of every cell compared with its baseline.
    """

    results: Results
    rows: list[Row]
    comparisons: list[Comparison]

    @classmethod
    def of(cls, folder: str | Path) -> Content:
        """Read a study's results and compute their statistics.

        Raises:
            OSError: if the folder has no study.
            ValueError: if the record is invalid.
        """
        results = Results(folder)
        return cls(results, rows_of(results), comparisons_of(results))

    def row(self, cell: str, metric: str) -> Row:
        """The row of a cell and a metric."""
        return next(row for row in self.rows if (row.cell, row.metric) == (cell, metric))

    def compared(self, cell: str, metric: str) -> list[Comparison]:
        """A cell's comparisons, axis by axis."""
        return [each for each in self.comparisons if (each.cell, each.metric) == (cell, metric)]

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """Mean costs over the finished runs of each cell."""
        costs = {}
        for cell in self.results.cells:
            known = self.results.costs(cell)
            names = [name for name in COSTS if any(name in cost for cost in known)]
            costs[cell] = {name: fmean(cost[name] for cost in known if name in cost) for name in names}
        return costs

    @property
    def tested(self) -> int:
        """Number of p-values that are corrected together."""
        return sum(each.p is not None for each in self.comparisons)

    @property
    def state(self) -> str:
        """Number of finished and failed runs, as text."""
        runs = self.results.record.runs
        words = [f"{sum(run.state == 'done' for run in runs)} of {len(runs)} runs"]
        failed = sum(run.state == "failed" for run in runs)
        return ", ".join([*words, *([f"{failed} failed"] if failed else [])])

    @property
    def command(self) -> str:
        """The command that repeats the study."""
        source = self.results.record.source
        folder = str(self.results.folder)
        return shlex.join(["scoredistill", "ablate", source, "--output", folder])

    @cached_property
    def available(self) -> Available:
        """Which statistics the tables contain."""
        means = [row.mean for row in self.rows if row.mean is not None]
        differences = [each.difference for each in self.comparisons if each.difference is not None]
        return Available(
            errors=any(mean.error is not None for mean in means),
            intervals=any(mean.low is not None for mean in means),
            differences=bool(differences),
            difference_intervals=any(each.low is not None for each in differences),
            effects=any(each.effect is not None for each in differences),
            tests=self.tested > 0,
        )

    def notes(self) -> list[str]:
        """Explanations of the statistics that the tables contain."""
        notes = [note for note in (self._about_means(), self._about_comparisons(), self._about_tests()) if note]
        return notes or ["No run has finished: there are no metrics."]

    def _about_means(self) -> str:
        seeds = max((row.mean.n for row in self.rows if row.mean is not None), default=0)
        if seeds == 0:
            return ""
        if not self.available.errors:
            return "One seed: there are neither standard errors nor intervals."
        means = "Means over seeds ± their standard errors."
        if not self.available.intervals:
            return f"{means} Fewer than three seeds: there are no intervals."
        return (
            f"{means} The intervals are 95% bootstrap intervals (expanded percentiles). With {seeds} seeds such an "
            f"interval contains the true center at most {1 - 2.0 ** (1 - seeds):.0%} of the time, because it cannot "
            "exceed the range of the seeds."
        )

    def _about_comparisons(self) -> str:
        if not self.available.differences:
            return ""
        sentences = [
            "Each cell is compared, seed by seed, with the cell that has the baseline's value on one axis and equal "
            "values on the others."
        ]
        if self.available.effects:
            sentences.append("d is the paired effect size (Hedges' correction).")
        if self.available.tests:
            sentences.append(
                "p is the p-value of the exact two-sided sign-flip test, with Holm's correction for "
                + ("one comparison." if self.tested == 1 else f"all {self.tested} comparisons.")
            )
        return " ".join(sentences)

    def _about_tests(self) -> str:
        """A note if there are too few seeds for a significant p-value."""
        tested = [each.difference for each in self.comparisons if each.p is not None and each.difference is not None]
        least = min((difference.least_p for difference in tested), default=0.0)
        if least * self.tested <= 0.05:
            return ""
        seeds = max(difference.n for difference in tested)
        needed = next(n for n in range(2, 64) if 2.0 ** (1 - n) * self.tested <= 0.05)
        sizes = "sizes and intervals" if self.available.difference_intervals else "sizes"
        return (
            f"With {seeds} seeds no single p can be below {least:.2g}, and no corrected p below .05: compare {sizes}, "
            f"or run {needed} seeds."
        )


def number(value: float | None) -> str:
    """A number with four significant digits; empty for None."""
    return "" if value is None else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """An interval as text; empty for None."""
    return "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
