"""Runs a command, and turns an exception into one message and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

from pytorch_lightning.trainer.states import TrainerStatus
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from scoredistill import start_up
from scoredistill.cli.argv import read_words
from scoredistill.cli.class_lookup import import_public_modules
from scoredistill.cli.command_line import CommandLine
from scoredistill.cli.errors import INTERRUPTED, SIGNALS, TERMINATED, Interrupted, UsageError, cause, constructor
from scoredistill.cli.key_types import register_tensors
from scoredistill.cli.lightning_patches import give_loggers_folders, quiet
from scoredistill.cli.load_run import find_former, load_generator
from scoredistill.cli.outputs import provenance, write_predictions
from scoredistill.cli.ranks import is_rank_zero, run_folder_env
from scoredistill.cli.run_config import END
from scoredistill.cli.workspace import Start
from scoredistill.files import reason, update_json, write_atomically, write_json_atomically
from scoredistill.training.callbacks.evaluation import EvaluationError
from scoredistill.training.distillation import Distillation
from scoredistill.training.run_folder import RunFolder
from scoredistill.training.training_module import TrainingModule

DEBUG = "SCOREDISTILL_DEBUG"
NON_TRAINING_COMMANDS = {
    "stages": ("stages", "stages"),
    "ablate": ("ablate", "ablate"),
    "report": ("report", "report"),
    "export": ("export", "export"),
    "view": ("viewer", "view"),
}
"""Commands without LightningCLI: the module, which is imported on use, and its function."""
IMPORTING_COMMANDS = ("fit", "validate", "test", "predict", "stages", "ablate")
"""Commands that import the user's classes from the working directory. The others only read run folders, which may come
from other people."""

LONGEST_WORD = 400
"""Maximum number of characters of a word in a message, longer than any typed path."""
FAILED, WRONG = 1, 2


class FailedRuns(Exception):
    """A study is not complete; the message has the first failure and how to resume."""


CLEAR_ERRORS = (UsageError, Interrupted, EvaluationError, FailedRuns)


def run(command: str, argv: list[str]) -> int:
    """Run a command.

    Args:
        command: fit, validate, test, predict, stages, ablate, report, export or view.
        argv: its options.

    Returns:
        The exit code.
    """
    debug = "--debug" in argv or bool(os.environ.get(DEBUG))
    try:
        with importable_working_directory() if command in IMPORTING_COMMANDS else nullcontext(), quiet():
            import_public_modules()
            register_tensors()
            give_loggers_folders()
            if command in NON_TRAINING_COMMANDS:
                module, action = NON_TRAINING_COMMANDS[command]
                words = [word for word in argv if word != "--debug"]
                act = getattr(importlib.import_module(f"scoredistill.cli.{module}"), action)
                if command not in ("ablate", "stages"):  # these do it before they start to write
                    start_up.restore_signals()
                act(words)
            else:
                train(command, argv)
    except SystemExit as end:  # after --help and --print_config
        return int(end.code or 0)
    except Exception as error:
        return _report(command, error, debug)
    return 0


def train(command: str, argv: list[str]) -> None:
    """Run fit, validate, test or predict.

    Raises:
        UsageError: if the options, the recipe or a constructor's arguments are wrong.
        Interrupted: after Ctrl-C or SIGTERM.
    """
    actions = {"fit": _fit, "validate": _validate, "test": _test, "predict": _predict}
    try:
        line = _build(lambda: CommandLine(command, read_words(argv)))
        try:
            with _signals(line), run_folder_env(line.workspace.folder):
                actions[command](line, [command, *argv])
        except EvaluationError:
            raise  # the other results are complete
        except BaseException as error:
            if command != "fit" or line.trainer.global_step <= line.workspace.start.step:
                line.workspace.discard()  # the run has no result yet
            if isinstance(error, OSError):
                raise _resumable(error, line) from error
            raise
        finally:
            line.workspace.close()
    finally:
        SIGNALS.end()


def _build(build: Callable[[], CommandLine]) -> CommandLine:
    """Build the run. An error before it starts is a mistake in the recipe, unless a signal stopped the process."""
    try:
        return build()
    except BaseException as error:
        if SIGNALS.code is not None:
            raise Interrupted("interrupted", SIGNALS.code) from error
        if isinstance(error, (UsageError, OSError, Interrupted)) or not isinstance(error, Exception):
            raise
        owner = constructor(cause(error))
        message = describe(error)
        raise UsageError(message if owner is None or owner in message else f"{owner}: {message}") from error


def _resumable(error: OSError, line: CommandLine) -> OSError:
    """The same error with how to resume; without a file name, it names the run folder."""
    hint = ""
    if line.command == "fit" and line.workspace.run.last_checkpoint() is not None:
        hint = f"; to resume from the last checkpoint: scoredistill fit --ckpt_path {line.workspace.folder}"
    if error.errno is None:
        return error
    return OSError(error.errno, f"{error.strerror}{hint}", error.filename or str(line.workspace.folder))


def _fit(line: CommandLine, command: list[str]) -> None:
    workspace = line.workspace
    trainer = line.trainer
    start = workspace.start
    source: dict[str, object] = {}
    if start.checkpoint is not None:
        source = {"resumed_from": str(start.checkpoint), "at_step": start.step}
    elif line.config.start_from is not None:
        former = find_former(line.config.start_from)
        _start_from(line.model, former)
        source = {"started_from": str(former.checkpoint)}
    if trainer.is_global_zero:
        if line.changed is not None and start.run is not None:
            sys.stdout.write(f"{line.changed} differs from {start.run.path}: this run uses {workspace.folder}\n")
        _write_recipe(workspace.run, line.recipe)
        _write_versions(workspace.run, provenance(command, trainer.strategy.root_device) | source)
    trainer.fit(line.model, datamodule=line.datamodule, ckpt_path=start.checkpoint, weights_only=True)


def _start_from(model: TrainingModule, former: Start) -> None:
    if not isinstance(model, Distillation):
        raise UsageError("start_from: only a distillation's generator can start from another run")
    assert former.run is not None
    assert former.checkpoint is not None
    try:
        model.distiller.generator.start_from(load_generator(former.run.config, former.checkpoint))
    except ValueError as error:
        raise UsageError(f"start_from: {error}") from error


def _validate(line: CommandLine, command: list[str]) -> None:
    line.trainer.validate(line.model, line.datamodule, _evaluated(line), verbose=False, weights_only=True)


def _test(line: CommandLine, command: list[str]) -> None:
    line.trainer.test(line.model, line.datamodule, _evaluated(line), verbose=False, weights_only=True)


def _evaluated(line: CommandLine) -> Path | None:
    """The checkpoint to evaluate; without one, print a warning."""
    checkpoint = line.workspace.start.checkpoint
    if checkpoint is None and line.trainer.is_global_zero:
        sys.stderr.write("warning: no --ckpt_path: the generator is untrained, as the recipe builds it\n")
    return checkpoint


def _predict(line: CommandLine, command: list[str]) -> None:
    workspace = line.workspace
    batches = line.trainer.predict(line.model, None, line.datamodule, None, _evaluated(line), weights_only=True)
    for path in write_predictions(cast(list[dict[str, Tensor]], batches), workspace.folder, line.config.separate):
        sys.stdout.write(f"wrote {path}\n")


def _write_recipe(run: RunFolder, recipe: str) -> None:
    """Write config.yaml; if a run resumes with a changed recipe, the earlier one is kept as config.before_N.yaml."""
    recipe += END
    if run.config.is_file() and (earlier := run.config.read_text(encoding="utf-8")) != recipe:
        number = len(list(run.path.glob("config.before_*.yaml")))
        write_atomically(run.path / f"config.before_{number}.yaml", lambda file: file.write(earlier.encode()))
    write_atomically(run.config, lambda file: file.write(recipe.encode()))


def _write_versions(run: RunFolder, made_with: dict[str, object]) -> None:
    """Write versions.json: a list with one entry per start or resume."""
    write_json_atomically(run.versions, [*update_json(run.versions, list), made_with])


@contextmanager
def _signals(line: CommandLine) -> Iterator[None]:
    """Raise `Interrupted` after a signal. Lightning turns Ctrl-C into an exit with code 1 and ignores later signals."""
    main_thread = threading.current_thread() is threading.main_thread()
    SIGNALS.leave(signal.SIGTERM)  # Lightning ends training at the next step
    handler = signal.getsignal(signal.SIGINT)
    try:
        if SIGNALS.code is not None:  # the signal's exception was swallowed
            raise KeyboardInterrupt
        yield
    except SIGTERMException as end:
        raise Interrupted(_how_to_resume(line), TERMINATED) from end
    except Exception as error:
        if line.trainer.received_sigterm:  # another process of this run ended first
            raise Interrupted(_how_to_resume(line), TERMINATED) from error
        if SIGNALS.code is not None:
            raise Interrupted(_how_to_resume(line), SIGNALS.code) from error
        raise
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, KeyboardInterrupt) or line.trainer.state.status == TrainerStatus.INTERRUPTED:
            raise Interrupted(_how_to_resume(line), SIGNALS.code or INTERRUPTED) from end
        raise
    finally:
        if main_thread:
            signal.signal(signal.SIGINT, handler)


def _how_to_resume(line: CommandLine) -> str:
    if line.command != "fit":
        return "interrupted"
    at = f"interrupted at step {line.trainer.global_step}"
    if line.workspace.run.last_checkpoint() is None:
        return f"{at}, before the first checkpoint (checkpoint_every: {line.config.checkpoint_every})"
    return f"{at}. To resume from its last checkpoint: scoredistill fit --ckpt_path {line.workspace.folder}"


@contextmanager
def importable_working_directory() -> Iterator[None]:
    """Let a recipe name classes of modules in the working directory, which is searched after the libraries."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def describe(error: BaseException) -> str:
    """An error's message on one line, with the name of its class unless the message is clear without it."""
    error = cause(error)
    if isinstance(error, OSError) and error.strerror:
        return reason(error, "") if error.filename else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, (*CLEAR_ERRORS, ValueError, FloatingPointError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _report(command: str, error: Exception, debug: bool) -> int:
    if debug and not isinstance(error, Interrupted):
        traceback.print_exception(error)
    known = (*CLEAR_ERRORS, ValueError, TypeError, OSError, FloatingPointError, ImportError)
    hint = "" if debug or isinstance(error, known) else " (--debug shows where)"
    if is_rank_zero() or not isinstance(error, Interrupted):
        message = " ".join(
            word if len(word) <= LONGEST_WORD else f"{word[:40]}..." for word in describe(error).split(" ")
        )
        sys.stderr.write(f"scoredistill {command}: {message}{hint}\n")
    if isinstance(error, Interrupted):
        return error.code
    return WRONG if isinstance(error, UsageError) else FAILED
