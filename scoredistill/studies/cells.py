"""The cells of a study: all combinations of its axes' values, each run with every seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scoredistill.studies.axes import StudyError
from scoredistill.studies.study import Study

RUNS = "runs"
"""Subfolder of the runs in the study's folder."""


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values.

    Args:
        name: such as `objective=VSD,guidance=7.5`.
        settings: name of the value per axis.
        words: the options of `fit`, without seed and output.
        key: identifies its resolved recipe.
    """

    name: str
    settings: Mapping[str, str]
    words: Sequence[str]
    key: str = ""

    def words_under(self, seed: int) -> list[str]:
        """The options of `fit` for one of its runs, without output."""
        return [*self.words, f"--seed_everything={seed}"]

    def key_under(self, seed: int) -> str:
        """Identifies one of its runs."""
        return f"{self.key} seed {seed}"

    def folder(self, seed: int) -> str:
        """Parent of that run's folder, relative to the study's folder."""
        return f"{RUNS}/{_safe(self.name)}/seed-{seed}"


def cells_of(study: Study) -> list[Cell]:
    """All combinations except those in `leave_out`, in the order of the axes.

    Raises:
        StudyError: if no combination remains, the baseline is left out, or two cells would share a folder.
    """
    cells = []
    for values in itertools.product(*(axis.values for axis in study.axes)):
        settings = {axis.name: value.name for axis, value in zip(study.axes, values, strict=True)}
        if any(out.items() <= settings.items() for out in study.leave_out if out):
            continue
        overlays = [overlay for value in values for overlay in value.overlays]
        words = [f"--config={recipe}" for recipe in (*study.recipes, *overlays)]
        words += [*study.options, *(word for value in values for word in value.options)]
        cells.append(Cell(",".join(f"{axis}={value}" for axis, value in settings.items()), settings, words))
    if not any(cell.settings == study.baseline for cell in cells):
        raise StudyError(f"{study.path}: leave_out leaves out the baseline, {dict(study.baseline)}")
    folders = [cell.folder(0).casefold() for cell in cells]  # some file systems ignore case
    same = next((cell.name for cell, folder in zip(cells, folders, strict=True) if folders.count(folder) > 1), None)
    if same is not None:
        raise StudyError(f"{study.path}: two cells would share one folder, that of {same}: rename their values")
    return cells


def _safe(name: str) -> str:
    """A name that is valid on every file system."""
    return re.sub(r"[^\w=,.+-]+", "_", name)[:200]
