"""Studies: runs of a recipe under all combinations of settings and seeds, and what they say."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoredistill.studies.axes import Axis, StudyError, Value
    from scoredistill.studies.cells import Cell, cells_of
    from scoredistill.studies.comparison import Comparison, Row, comparisons_of, rows_of
    from scoredistill.studies.record import RunRecord, StudyRecord
    from scoredistill.studies.results import Missing, Results
    from scoredistill.studies.runner import Run, Runner
    from scoredistill.studies.statistics import Difference, Mean, holm, mean_of, paired
    from scoredistill.studies.study import Study, read_study

__all__ = [
    "Axis",
    "Cell",
    "Comparison",
    "Difference",
    "Mean",
    "Missing",
    "Results",
    "Row",
    "Run",
    "RunRecord",
    "Runner",
    "Study",
    "StudyError",
    "StudyRecord",
    "Value",
    "cells_of",
    "comparisons_of",
    "holm",
    "mean_of",
    "paired",
    "read_study",
    "rows_of",
]

_HOMES = {
    "Axis": "axes",
    "Cell": "cells",
    "Comparison": "comparison",
    "Difference": "statistics",
    "Mean": "statistics",
    "Missing": "results",
    "Results": "results",
    "Row": "comparison",
    "Run": "runner",
    "RunRecord": "record",
    "Runner": "runner",
    "Study": "study",
    "StudyError": "axes",
    "StudyRecord": "record",
    "Value": "axes",
    "cells_of": "cells",
    "comparisons_of": "comparison",
    "holm": "statistics",
    "mean_of": "statistics",
    "paired": "statistics",
    "read_study": "study",
    "rows_of": "comparison",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a process that only starts a run does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'scoredistill.studies' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"scoredistill.studies.{_HOMES[name]}"), name)
