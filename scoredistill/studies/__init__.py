"""Studies: runs of a recipe under all combinations of settings and seeds, and what they say."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoredistill.studies.axes import Axis, StudyError, Value
    from scoredistill.studies.record import RunRecord, StudyRecord
    from scoredistill.studies.results import Comparison, Missing, Results, Row, comparisons_of, rows_of
    from scoredistill.studies.runner import Run, Runner
    from scoredistill.studies.statistics import Difference, Mean, holm, mean_of, paired
    from scoredistill.studies.study import Cell, Study, cells_of, read_study

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
    "Cell": "study",
    "Comparison": "results",
    "Difference": "statistics",
    "Mean": "statistics",
    "Missing": "results",
    "Results": "results",
    "Row": "results",
    "Run": "runner",
    "RunRecord": "record",
    "Runner": "runner",
    "Study": "study",
    "StudyError": "axes",
    "StudyRecord": "record",
    "Value": "axes",
    "cells_of": "study",
    "comparisons_of": "results",
    "holm": "statistics",
    "mean_of": "statistics",
    "paired": "statistics",
    "read_study": "study",
    "rows_of": "results",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a process that only starts a run does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'scoredistill.studies' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"scoredistill.studies.{_HOMES[name]}"), name)
