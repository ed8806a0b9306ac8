"""The report of a study: a self-contained HTML page, Markdown and CSV files."""

from __future__ import annotations

from pathlib import Path

from scoredistill.files import write_together
from scoredistill.studies.report.content import Available, Content
from scoredistill.studies.report.page import page
from scoredistill.studies.report.tables import comparisons_csv, markdown, results_csv, summary_csv

__all__ = ["Available", "Content", "write_report"]


def write_report(folder: str | Path) -> Path:
    """Write report.html, report.md, summary.csv, comparisons.csv and results.csv into a study's folder.

    Args:
        folder: the study's folder; the study may be unfinished.

    Returns:
        Path of the HTML page.

    Raises:
        OSError: if the folder has no study, or cannot be written.
        ValueError: if the record is invalid.
    """
    content = Content.of(folder)
    path = Path(folder) / "report.html"
    write_together(
        {
            path.with_name("summary.csv"): summary_csv(content).encode(),
            path.with_name("comparisons.csv"): comparisons_csv(content).encode(),
            path.with_name("results.csv"): results_csv(content).encode(),
            path.with_name("report.md"): markdown(content).encode(),
            path: page(content).encode(),
        }
    )
    return path
