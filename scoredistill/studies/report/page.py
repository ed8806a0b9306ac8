"""The report as a self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from scoredistill.data.picture_files import opened
from scoredistill.studies.report.content import COSTS, Content, number
from scoredistill.studies.report.plots import bands_of, curve, dots, over_axes
from scoredistill.studies.report.tables import figure_rows, head

WIDEST = 360
"""Longer side of a picture in pixels, which keeps a page of a hundred cells small enough to send."""


def page(content: Content) -> str:
    """The HTML page.

    Args:
        content: content of the report.
    """
    results = content.results
    sections = [_section("How to read it", "".join(f"<p>{escape(note)}</p>" for note in content.notes()))]
    if results.missing:
        rows = [[m.cell, str(m.seed), m.what, m.why] for m in results.missing]
        sections.insert(0, _section("What is missing", _table(["cell", "seed", "what", "why"], rows), "missing"))
    sections += [_figure(content, metric) for metric in results.metrics]
    sections += [_curves(content), _pictures(content), _costs(content), _study(content)]
    title = escape(results.record.name)
    files = resources.files(__package__)
    style, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><header><h1>{title}</h1><p>{escape(content.state)}</p></header>"
        f"<main>{''.join(sections)}</main><script>{script}</script></body></html>\n"
    )


def _section(title: str, inner: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{inner}</section>' if inner else ""


def _figure(content: Content, metric: str) -> str:
    if not any(content.results.values(cell, metric) for cell in content.results.cells):
        return _section(metric, "<p>No run has this metric.</p>")
    drawn = "".join(f"<figure>{each}</figure>" for each in [dots(content, metric), *over_axes(content, metric)])
    return _section(metric, drawn + _table(head(content), figure_rows(content, metric), numbers=range(1, 9)))


def _curves(content: Content) -> str:
    bands = bands_of(content)
    if not bands:
        return ""
    names = [f"<option>{escape(name)}</option>" for name in bands]
    chooser = f'<label>metric <select id="curve">{"".join(names)}</select></label>'
    cells = content.results.cells
    drawn = [
        f'<figure data-curve="{escape(name)}"{"" if i == 0 else " hidden"}>{curve(name, known, cells)}</figure>'
        for i, (name, known) in enumerate(bands.items())
    ]
    note = "<p>Means over the seeds; the bands extend from the lowest to the highest.</p>"
    return _section("Learning curves", note + chooser + "".join(drawn))


def _pictures(content: Content) -> str:
    shown = [figure for cell in content.results.cells if (figure := _picture(content, cell))]
    return _section("Pictures", f'<div class="pictures">{"".join(shown)}</div>' if shown else "")


def _picture(content: Content, cell: str) -> str:
    """The first readable picture of a cell; damaged ones before it are listed."""
    damaged = ""
    for seed, path in content.results.pictures(cell):
        try:
            image = f'<img alt="{escape(cell)}" src="{_data_url(path)}">'
        except OSError as error:
            damaged += f"<br>seed {seed}: {escape(str(path))} is damaged: {escape(error.strerror or str(error))}"
        else:
            return f"<figure>{image}<figcaption>{escape(cell)}{damaged}</figcaption></figure>"
    return f"<figure><figcaption>{escape(cell)}{damaged}</figcaption></figure>" if damaged else ""


def _data_url(path: Path) -> str:
    """A thumbnail of a picture, or of an animation's first frame, as a data URL.

    Raises:
        OSError: if the file cannot be read or decoded.
    """
    try:
        with opened(path, str(path)) as image:
            small = image.convert("RGB")
    except ValueError as error:
        raise OSError(str(error)) from error
    small.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _costs(content: Content) -> str:
    names = [name for name in COSTS if any(name in cost for cost in content.costs.values())]
    rows = [[cell, *(number(cost.get(name)) for name in names)] for cell, cost in content.costs.items()]
    table = _table(["cell", *(COSTS[name] for name in names)], rows, numbers=range(1, len(names) + 1))
    return _section("Cost of a run", f"<p>Means over the finished runs; training only.</p>{table}" if names else "")


def _study(content: Content) -> str:
    record = content.results.record
    rows = [[axis, ", ".join(values), record.baseline.get(axis, "")] for axis, values in record.axes.items()]
    seeds = escape(", ".join(map(str, record.seeds)))
    versions = _versions(content)
    words = f"<p>Seeds {seeds}. {versions}Repeat with <code>{escape(content.command)}</code></p>"
    return _section("The study", _table(["axis", "values", "baseline"], rows) + words)


def _versions(content: Content) -> str:
    """Software versions of the first finished run, as text."""
    versions = content.results.versions
    known = [f"{key} {versions[key]}" for key in ("scoredistill", "torch", "python", "device") if versions.get(key)]
    return escape(", ".join(known)) + ". " if known else ""


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    head = "".join(f'<th scope="col"{_right(i in right)}>{escape(name)}</th>' for i, name in enumerate(names))
    body = ["".join(f"<td{_right(i in right)}>{escape(cell)}</td>" for i, cell in enumerate(row)) for row in rows]
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _right(number: bool) -> str:
    return ' class="number"' if number else ""
