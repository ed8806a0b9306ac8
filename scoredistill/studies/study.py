"""A study's file, a recipe, axes and seeds, and the cells that it spans."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library
from scoredistill.recipe_library import did_you_mean
from scoredistill.studies.axes import Axis, StudyError, as_list, read_axis, words_of

KEYS = ("recipe", "output", "options", "axes", "seeds", "baseline", "metrics", "leave_out", "launcher")


@dataclass(frozen=True)
class Study:
    """Runs of a recipe under all combinations of some settings, each with the same seeds.

    Args:
        path: path of the file.
        recipes: recipes of every run, passed as --config in this order.
        output: folder of the study.
        options: options of `fit` for every run.
        axes: the axes, in order.
        seeds: seeds of every cell, passed as seed_everything.
        baseline: per axis, the value that the others are compared with.
        metrics: reported metrics; empty: all.
        leave_out: combinations that are not run, as values per axis.
        launcher: class_path and init_args of the launcher; empty: local processes.
    """

    path: Path
    recipes: Sequence[str]
    output: str
    options: Sequence[str]
    axes: Sequence[Axis]
    seeds: Sequence[int]
    baseline: Mapping[str, str]
    metrics: Sequence[str]
    leave_out: Sequence[Mapping[str, str]]
    launcher: Mapping[str, Any]


def read_study(name: str | Path) -> Study:
    """Read a study's file.

    Args:
        name: path of the file, or name of a shipped study.

    Raises:
        StudyError: if the file is invalid; the message names the key and the remedy.
    """
    path, content = _content(name)
    missing = next((key for key in ("recipe", "axes") if not content.get(key)), None)
    if missing:
        raise StudyError(f"{path}: needs `{missing}:`; see `scoredistill recipes show studies/points`")
    try:
        axes = _axes(content["axes"], path)
        return Study(
            path=path,
            recipes=[_recipe(each, path) for each in as_list(content["recipe"])],
            output=str(content.get("output") or f"runs/studies/{path.stem}"),
            options=words_of(content.get("options") or {}, path, "options"),
            axes=axes,
            seeds=_seeds(content.get("seeds", 3)),
            baseline=_firsts(axes) | _chosen(content.get("baseline"), axes, "baseline"),
            metrics=[str(each) for each in as_list(content.get("metrics"))],
            leave_out=[_chosen(each, axes, "leave_out") for each in as_list(content.get("leave_out"))],
            launcher=_launcher(content.get("launcher")),
        )
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def _content(name: str | Path) -> tuple[Path, dict[str, Any]]:
    try:
        path = recipe_library.find(name)
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise StudyError(str(error)) from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: not a study: it must contain `recipe:` and `axes:`")
    unknown = next((str(key) for key in content if key not in KEYS), None)
    if unknown is not None:
        hint = did_you_mean(unknown, KEYS) or f"There are {', '.join(KEYS)}."
        raise StudyError(f"{path}: a study has no key {unknown!r}. {hint} Settings of its runs belong under options")
    return path, content


def _recipe(name: Any, path: Path) -> str:
    """A recipe next to the study's file; otherwise the name as `fit` resolves it."""
    beside = path.parent / str(name)
    return str(beside) if beside.is_file() else str(name)


def _axes(content: Any, path: Path) -> list[Axis]:
    if not isinstance(content, dict):
        raise StudyError(f"axes: expected names, each with its values, got {content!r}")
    axes = [read_axis(str(key), values, path) for key, values in content.items()]
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):  # two keys have the same last part
        axes = [Axis(axis.key, axis.key, axis.values) for axis in axes]
    return axes


def _seeds(content: Any) -> list[int]:
    seeds = list(range(content)) if type(content) is int else content
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise StudyError(f"seeds: expected the number of seeds, or a list of them, got {content!r}")
    if len(set(seeds)) < len(seeds):
        raise StudyError(f"seeds: one is listed twice: {seeds}")
    return seeds


def _firsts(axes: Sequence[Axis]) -> dict[str, str]:
    return {axis.name: axis.values[0].name for axis in axes}


def _chosen(content: Any, axes: Sequence[Axis], key: str) -> dict[str, str]:
    """The name of one value per axis."""
    chosen = {}
    if content is not None and not isinstance(content, dict):
        raise StudyError(f"{key}: expected axes, each with one of its values, got {content!r}")
    for name, value in (content or {}).items():
        axis = next((axis for axis in axes if name in (axis.key, axis.name)), None)
        if axis is None:
            known = [axis.key for axis in axes]
            hint = did_you_mean(str(name), known) or f"There are {', '.join(known)}."
            raise StudyError(f"{key}: there is no axis {name!r}. {hint}")
        chosen[axis.name] = axis.value(value, key).name
    return chosen


def _launcher(content: Any) -> dict[str, Any]:
    if isinstance(content, str):
        return {"class_path": content}
    if content is not None and not isinstance(content, dict):
        raise StudyError(f"launcher: expected a class_path and init_args, got {content!r}")
    return content or {}


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
