"""A run's training curves, from the CSV files that Lightning's logger writes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

Curve = tuple[list[int], list[float | None]]
"""Steps in order, and the metric's value at each; None where it was not finite."""

NOT_CURVES = {"epoch", "step"}


def read_curves(run: Path, damaged: list[str] | None = None) -> dict[str, Curve]:
    """Read every logged metric over training steps.

    A resumed run has one file per part; where parts overlap, the later part is used.

    Args:
        run: the run folder.
        damaged: receives one line per file that cannot be read.
    """
    points: dict[str, dict[int, float | None]] = {}
    for path in sorted(run.glob("**/version_*/metrics.csv"), key=_part):
        try:
            rows = list(_rows(path))
        except (OSError, ValueError, csv.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            if damaged is not None:
                damaged.append(f"{path} is damaged: {why}")
            continue
        first = min((step for step, _ in rows), default=0)
        for curve in points.values():
            for step in [step for step in curve if step >= first]:
                del curve[step]
        for step, metrics in rows:
            for name, value in metrics.items():
                points.setdefault(name, {})[step] = value
    curves = {name: sorted(curve.items()) for name, curve in sorted(points.items()) if curve}
    return {name: ([step for step, _ in curve], [value for _, value in curve]) for name, curve in curves.items()}


def _part(path: Path) -> int:
    number = path.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _rows(path: Path) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Steps with their logged metrics. The last line of an active run may be incomplete and is then skipped.

    Raises:
        OSError, ValueError, csv.Error: if the file cannot be read or is not a metrics file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise ValueError("it has no column `step`")
        for row in reader:
            try:
                metrics = {name: float(text) for name, text in row.items() if text and name not in NOT_CURVES}
                step = int(row["step"])
            except (KeyError, TypeError, ValueError):
                continue
            yield step, {name: value if math.isfinite(value) else None for name, value in metrics.items()}
