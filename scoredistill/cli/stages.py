"""scoredistill stages: runs recipes in sequence, each from the result of the previous one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library, start_up
from scoredistill.cli.attempts import Attempt, copied_note
from scoredistill.cli.errors import INTERRUPTED, TERMINATED, Interrupted, UsageError
from scoredistill.cli.options import OptionParser
from scoredistill.cli.run_key import Resolver
from scoredistill.cli.workspace import locked_folder
from scoredistill.files import load_json, remove_partial, update_json, write_json_atomically
from scoredistill.processes import run_bound
from scoredistill.training.run_folder import RunFolder

RECORD = "stages.json"
"""File in the folder of all stages: the request of each stage, and the run that finished it."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: of the stage and of its folder.
        words: options of `fit`, without output and start.
        folder: parent of its runs.
    """

    name: str
    words: list[str]
    folder: Path

    @property
    def newest_run(self) -> str | None:
        """The newest run with a checkpoint, or None."""
        run = RunFolder.newest(self.folder)
        return None if run is None else str(run.path)


def stages(argv: Sequence[str]) -> None:
    """Run every unfinished stage, each from the result of the previous one.

    Args:
        argv: the options.

    Raises:
        UsageError: if the file or an option is wrong, or a stage fails; its message is printed above.
    """
    options, words = _parser().parse_known_args(argv)
    todo, folder = _read(options.stages, options.output, words)
    resolve = Resolver()
    keys = {stage.name: resolve.key(stage.words) for stage in todo}  # finds a misspelled key before the first stage
    start_up.restore_signals()
    with locked_folder(folder, "stages"):
        remove_partial(folder)
        former = _run_all(todo, keys, folder)
    _print(f"to export the result: scoredistill export {former}")


def _run_all(todo: Sequence[Stage], keys: Mapping[str, str], folder: Path) -> str | None:
    """Run all unfinished stages, and return the run folder of the last one."""
    record = _record(folder, todo)
    former = None
    for number, stage in enumerate(todo, 1):
        note = record.get(stage.name)
        note = note if isinstance(note, dict) else {}
        attempt = Attempt({"key": keys[stage.name], "start_from": former}, note, stage.folder)
        if attempt.finished is not None:
            former = attempt.finished
            _print(f"stage {number} of {len(todo)}: {stage.name} is finished, {former}")
            continue
        changed = f" again: changed {', '.join(attempt.changed)}" if attempt.changed else ""
        _print(f"stage {number} of {len(todo)}: {stage.name}{changed}")
        goes_on = attempt.goes_on
        record[stage.name] = attempt.begun
        write_json_atomically(folder / RECORD, record)
        former = _fit(stage, former, goes_on)
        record[stage.name] = attempt.ended(former)
        write_json_atomically(folder / RECORD, record)
    return former


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="scoredistill stages",
        usage="scoredistill stages STAGES [--output FOLDER] [--OPTION VALUE ...] [--STAGE.OPTION VALUE ...]",
        description="Run recipes in sequence, each from the result of the previous one. The same command resumes "
        "stopped stages. Options of `scoredistill fit` apply to all stages, or to one if its name is in front.",
        allow_abbrev=False,
    )
    parser.add_argument("stages", metavar="STAGES", help="a file with the stages, prolificdreamer/stages for example")
    parser.add_argument("--output", help="folder for the runs of all stages; by default as in the file")
    return parser


def _read(name: str, output: str | None, words: list[str]) -> tuple[list[Stage], Path]:
    """The stages of a file, and the folder of all stages."""
    try:
        path = recipe_library.find(name)
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise UsageError(str(error)) from error
    named = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named or not all(_are_recipes(value) for value in named.values()):
        raise UsageError(f"{path}: needs `stages:`, each a name with the list of its recipes, as in nerf: [nerf.yaml]")
    if unknown := [key for key in content if key not in ("output", "stages")]:
        raise UsageError(
            f"{path}: there is no {unknown[0]!r} beside output and stages; set other keys in the stages' recipes"
        )
    folder = Path(output or content.get("output") or f"runs/{path.stem}")
    todo = [
        Stage(stage, [*_configs(path, recipes), *_words_of(stage, list(named), words)], folder / stage)
        for stage, recipes in named.items()
    ]
    return todo, folder


def _are_recipes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _configs(path: Path, recipes: Sequence[str]) -> list[str]:
    """The recipes as options: files relative to the file of the stages, or names that `fit` resolves."""
    files = [path.parent / recipe for recipe in recipes]
    return [f"--config={file if file.is_file() else recipe}" for file, recipe in zip(files, recipes, strict=True)]


def _words_of(stage: str, names: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words for all stages, and those for this one without its name."""
    chosen = []
    applies = True
    for word in words:
        if word.startswith("--"):
            owner = word[2:].split("=", 1)[0].split(".", 1)[0]
            applies = owner == stage or owner not in names
            word = f"--{word[3 + len(owner) :]}" if owner in names else word
        if applies:
            chosen.append(word)
    return chosen


def _record(folder: Path, todo: Sequence[Stage]) -> dict[str, Any]:
    """The note of every stage; if the file is damaged, from the copies in the finished runs."""
    path = folder / RECORD
    try:
        return load_json(path, dict)
    except FileNotFoundError:
        return {}
    except ValueError:
        update_json(path, dict)  # prints a warning, and sets the damaged file aside
        return {stage.name: copied_note(stage.folder) for stage in todo}


def _fit(stage: Stage, former: str | None, goes_on: bool) -> str:
    """Run a stage, and return its run folder."""
    words = ["fit", *stage.words, "--output", str(stage.folder)]
    if former is not None:
        words += ["--start_from", former]
    if goes_on:
        words += ["--ckpt_path", "last"]
    code = run_bound([sys.executable, "-P", "-m", "scoredistill", *words])
    if code in (INTERRUPTED, TERMINATED):
        raise Interrupted(f"stage {stage.name} was interrupted; run the same command to resume", code)
    if code != 0 or stage.newest_run is None:
        raise UsageError(f"stage {stage.name} failed, see the message above; run the same command to resume")
    return stage.newest_run


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
