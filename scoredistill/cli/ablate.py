"""scoredistill ablate: runs a recipe with all combinations of some settings, and compares them."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from scoredistill import start_up
from scoredistill.cli.argv import is_setting, joined, of_option
from scoredistill.cli.checking import Source, check
from scoredistill.cli.commands import FailedRuns, describe
from scoredistill.cli.errors import INTERRUPTED, TERMINATED, Interrupted, UsageError, essence
from scoredistill.cli.help import HelpFormatter
from scoredistill.cli.recipe_parser import RecipeParser
from scoredistill.cli.report import print_metrics
from scoredistill.cli.run_key import Resolver
from scoredistill.cli.study_worker import attempt_at, main
from scoredistill.cli.workspace import locked_folder
from scoredistill.files import reason, remove_partial, update_json, write_atomically
from scoredistill.studies.axes import StudyError
from scoredistill.studies.launchers import Launcher
from scoredistill.studies.launchers.launcher import LOG
from scoredistill.studies.live import Display
from scoredistill.studies.record import RECORD
from scoredistill.studies.report import Content, write_report
from scoredistill.studies.runner import Runner
from scoredistill.studies.study import Cell, Study, cells_of, read_study

COPY = "study.yaml"
"""Copy of the study's file, in the study's folder."""


def ablate(argv: Sequence[str]) -> None:
    """Run the unfinished runs of a study, and write its report.

    Args:
        argv: the options.

    Raises:
        UsageError: if the file or an option is wrong; nothing is written.
        FailedRuns: if runs failed, with the others and the report complete; or if the report cannot be written.
        Interrupted: after Ctrl-C or SIGTERM.
    """
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is None and not {"-h", "--help"} & set(argv):
        raise UsageError(
            "name the study's file first, as in `scoredistill ablate studies/points`; see `scoredistill ablate --help`"
        )
    try:
        study = None if name is None else read_study(name)
        options = _options(argv, study)
        assert study is not None
        study = replace(study, output=options.output)
        cells = _resolved(study, cells_of(study))
    except StudyError as error:
        raise UsageError(str(error)) from error
    if options.dry_run:
        _list(study, cells)
        return
    launcher = _launcher(options)
    folder = Path(study.output)
    text = study.path.read_bytes()
    start_up.restore_signals()
    with locked_folder(folder, "ablate"):
        remove_partial(folder)
        try:
            update_json(folder / RECORD, dict)  # sets a damaged file aside
            write_atomically(folder / COPY, lambda file: file.write(text))
            _run(study, cells, folder, launcher)
        except OSError as error:
            raise FailedRuns(f"{reason(error, folder)}; fix it, and run the same command to resume") from error


def _options(argv: Sequence[str], study: Study | None) -> Namespace:
    parser = _parser(study)
    given = joined(argv if study is None else argv[1:])
    if study is not None:
        default = {"class_path": "LocalProcesses", **study.launcher}
        sources = [Source({"launcher": default}, study.path.parent, str(study.path))]
        sources += [of_option(word) for word in given if is_setting(word)]
        check(sources, parser.keys, (), {})
        parser.set_defaults(launcher=default)
        given = [argv[0], *given]
    try:
        return parser.parse_args(given)
    except (argparse.ArgumentError, ValueError) as error:
        raise UsageError(essence(error)) from error


def _parser(study: Study | None) -> RecipeParser:
    parser = RecipeParser(
        prog="scoredistill ablate",
        usage="scoredistill ablate STUDY [--output FOLDER] [--launcher CLASS] [--launcher.OPTION VALUE] [--dry_run]",
        description="Run a recipe with all combinations of a study's settings, each with the same seeds, and write a "
        "report. The same command resumes a stopped study, and repeats failed runs.",
        exit_on_error=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("study", help="a file with recipe, axes and seeds")
    parser.add_argument("--output", type=str, default=study and study.output, help="folder of the study")
    parser.add_argument("--dry_run", action="store_true", help="list the commands of the runs without running them")
    parser.add_subclass_arguments(Launcher, "launcher", required=True, help="starts the runs")
    return parser


def _launcher(options: Namespace) -> Launcher:
    parser = RecipeParser(exit_on_error=False)
    parser.add_subclass_arguments(Launcher, "launcher", required=True)
    try:
        built = parser.instantiate_classes(Namespace(launcher=options.launcher)).launcher
    except (ValueError, ImportError) as error:
        raise UsageError(f"launcher: {describe(error)}") from error
    assert isinstance(built, Launcher)
    return built


def _resolved(study: Study, cells: Sequence[Cell]) -> list[Cell]:
    """The cells with their keys. Resolving all cells first finds a misspelled key before the first run starts."""
    resolve = Resolver()
    resolved = []
    for cell in cells:
        try:
            resolved.append(replace(cell, key=resolve.key(cell.words)))
        except UsageError as error:
            raise UsageError(f"{study.path}: {cell.name}: {error}") from error
    return resolved


def _list(study: Study, cells: Sequence[Cell]) -> None:
    for cell in cells:
        for seed in study.seeds:
            line = ["scoredistill", "fit", *cell.words_under(seed), "--output", f"{study.output}/{cell.folder(seed)}"]
            sys.stdout.write(f"{cell.name} seed {seed}: {shlex.join(line)}\n")


def _run(study: Study, cells: Sequence[Cell], folder: Path, launcher: Launcher) -> None:
    def finished(place: Path, key: str) -> str | None:
        run = attempt_at(place, key).finished
        return None if run is None else Path(run).name

    with Display(launcher.slots) as display, _signals():
        runner = Runner(study, cells, folder, main, finished, display.update)
        _print_changed(runner)
        runner.run(launcher)
    if runner.unwritten is not None:
        raise runner.unwritten
    print_metrics(Content.of(folder))
    sys.stdout.write(f"report: {write_report(folder)}\n")
    failed = [run for run in runner.runs if run.state == "failed"]
    if failed:
        first = f"{failed[0].cell.name} seed {failed[0].seed}: {failed[0].message}"
        raise FailedRuns(
            f"{len(failed)} of {len(runner.runs)} runs failed; {first} (full output: {failed[0].folder / LOG}). "
            "Run the same command to repeat them"
        )


def _print_changed(runner: Runner) -> None:
    """Print the cells that are repeated because the user's code or data changed, not the study's file."""
    lines: dict[str, None] = {}
    for run in runner.runs:
        if run.state == "waiting" and (changed := attempt_at(run.folder, run.cell.key_under(run.seed)).changed):
            verb = "has" if len(changed) == 1 else "have"
            lines[f"{run.cell.name}: {', '.join(changed)} {verb} changed, running it again\n"] = None
    sys.stdout.writelines(lines)
    sys.stdout.flush()


@contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into an `Interrupted` with a message."""

    def terminate(*_: object) -> None:
        raise Interrupted("stopped; run the same command to resume", TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; run the same command to resume", INTERRUPTED) from error
    finally:
        signal.signal(signal.SIGTERM, before)
