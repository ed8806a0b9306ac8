"""What a study asks for: a file with a recipe, axes and seeds."""

from __future__ import annotations

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
    """Runs of a recipe under all combinations of some settings, each under the same seeds.

    Args:
        path: the file.
        recipes: --config of every run, in order.
        output: folder for everything.
        options: words of every run.
        axes: in order.
        seeds: of every cell: seed_everything.
        baseline: by axis, the value that the others are compared with.
        metrics: metrics that the report is about; empty: all.
        leave_out: combinations that are not run, by axis.
        launcher: its class_path and init_args; nothing: local processes.
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
        name: of the file, or of a shipped one.

    Raises:
        StudyError: if something is wrong in it, naming the key and the remedy.
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
        raise StudyError(f"{path}: is no study: it has to hold `recipe:` and `axes:`")
    unknown = next((str(key) for key in content if key not in KEYS), None)
    if unknown is not None:
        hint = did_you_mean(unknown, KEYS) or f"There are {', '.join(KEYS)}."
        raise StudyError(f"{path}: a study has no key {unknown!r}. {hint} Settings of its runs belong under options")
    return path, content


def _recipe(name: Any, path: Path) -> str:
    """Beside the study's file, or else where `fit` looks for it."""
    beside = path.parent / str(name)
    return str(beside) if beside.is_file() else str(name)


def _axes(given: Any, path: Path) -> list[Axis]:
    if not isinstance(given, dict):
        raise StudyError("axes: needs names, each with its values")
    axes = [read_axis(str(key), values, path) for key, values in given.items()]
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):  # two keys that end alike
        axes = [Axis(axis.key, axis.key, axis.values) for axis in axes]
    return axes


def _seeds(given: Any) -> list[int]:
    seeds = list(range(given)) if type(given) is int else given
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise StudyError(f"seeds: expected a number of seeds, or a list of them, got {given!r}")
    if len(set(seeds)) < len(seeds):
        raise StudyError(f"seeds: one stands there twice: {seeds}")
    return seeds


def _firsts(axes: Sequence[Axis]) -> dict[str, str]:
    return {axis.name: axis.values[0].name for axis in axes}


def _chosen(given: Any, axes: Sequence[Axis], key: str) -> dict[str, str]:
    """By axis, one of its values."""
    chosen = {}
    if given is not None and not isinstance(given, dict):
        raise StudyError(f"{key}: expected axes, each with one of its values, got {given!r}")
    for name, value in (given or {}).items():
        axis = next((axis for axis in axes if name in (axis.key, axis.name)), None)
        if axis is None:
            known = [axis.key for axis in axes]
            hint = did_you_mean(str(name), known) or f"There are {', '.join(known)}."
            raise StudyError(f"{key}: there is no axis {name!r}. {hint}")
        chosen[axis.name] = axis.value(value, key).name
    return chosen


def _launcher(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return {"class_path": given}
    if given is not None and not isinstance(given, dict):
        raise StudyError(f"launcher: expected a class_path and init_args, got {given!r}")
    return given or {}
