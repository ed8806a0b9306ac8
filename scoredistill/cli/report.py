"""scoredistill report: writes the report of a study again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from scoredistill.cli.errors import UsageError
from scoredistill.cli.options import OptionParser
from scoredistill.studies.report import Content, write_report
from scoredistill.studies.report.tables import mean_text


def report(argv: Sequence[str]) -> None:
    """Write a study's report, and print its metrics and path.

    Args:
        argv: the options.

    Raises:
        UsageError: if there is no study, or its record cannot be read.
    """
    parser = OptionParser(
        prog="scoredistill report",
        description="Write the report of a study, finished or not: report.html, which opens offline, report.md, and "
        "the metrics as CSV.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="the output folder of the study")
    folder = Path(parser.parse_args(argv).folder)
    if not (folder / "study.json").is_file():
        raise UsageError(f"{folder} has no study.json: it is not an output folder of `scoredistill ablate`")
    try:
        content = Content.of(folder)
        path = write_report(folder)
    except ValueError as error:
        raise UsageError(f"{error}; run `scoredistill ablate` on its study to write it again") from error
    for line in content.results.damaged:
        sys.stderr.write(f"warning: {line}; it is missing from the report\n")
    print_metrics(content)
    sys.stdout.write(f"report: {path}\n")


def print_metrics(content: Content) -> None:
    """Print the means on the terminal, one row per cell."""
    metrics = content.results.metrics
    console = Console(highlight=False)
    # Long names are folded, because an ellipsis could hide the difference between cells.
    table = Table(Column("cell", overflow="fold"), *metrics, title=f"{content.results.record.name}: {content.state}")
    for cell in content.results.cells:
        table.add_row(cell, *(mean_text(content.row(cell, metric).mean) for metric in metrics))
    console.print(table)
