"""The networks that a recipe builds on, trained first where there are none yet."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError
from scoredistill.cli.interrupted import INTERRUPTED, TERMINATED, Interrupted
from scoredistill.cli.processes import SHARED, alone
from scoredistill.files import reason
from scoredistill.networks.storage import DESCRIPTION, find_trained
from scoredistill.processes import FolderLock, InUseError, run_bound
from scoredistill.training.run_folder import RunFolder, make_folder


@dataclass(frozen=True)
class Kind:
    """Of a network that a recipe can train for another.

    Args:
        part: folder of a finished run in which it lies, which is its name too.
        marker: a file by which that folder is known.
    """

    part: str
    marker: str


KINDS = {
    "folder": Kind("teacher", DESCRIPTION),
    "model": Kind("pipeline", "model_index.json"),
    "autoencoder": Kind("autoencoder", "config.json"),
}
"""By the setting that says where it is; `trained_by` beside it names the recipe."""


def train_what_is_missing(model: Namespace) -> None:
    """Run the recipes that `trained_by` names for what is not there yet; go on where they were interrupted.

    Args:
        model: the settings of a parsed recipe's model; those of its teacher are looked at too.

    Raises:
        UsageError: if a training fails; its own message stands above.
        Interrupted: if one was told to stop.
    """
    teacher = model.get("teacher")
    own = teacher.get("init_args") if isinstance(teacher, Namespace) else None
    for settings in (model, own or Namespace()):
        recipe = settings.get("trained_by")
        for key, kind in KINDS.items():
            folder = settings.get(key)
            if (
                isinstance(recipe, str)
                and isinstance(folder, str)
                and find_trained(folder, kind.part, kind.marker) is None
            ):
                _train(kind, Path(folder), recipe)


def _train(kind: Kind, folder: Path, recipe: str) -> None:
    """Train it, unless another process of this run does, or another run has by the time that the folder is free."""
    if SHARED in os.environ:
        return
    try:
        make_folder(folder)
        lock = _lock(kind, folder)
    except OSError as error:
        raise UsageError(f"cannot write into {reason(error, folder)}") from error
    with lock:
        if find_trained(folder, kind.part, kind.marker) is None:
            _say(f"there is no {kind.part} in {folder} yet: training it by {recipe}")
            _fit(kind, folder, recipe)
    _say(f"the {kind.part} is trained: now what needs it")


def _lock(kind: Kind, folder: Path) -> FolderLock:
    try:
        return FolderLock(folder, patience=0)
    except InUseError:
        _say(f"another process is training the {kind.part} in {folder}: waiting for it")
        return FolderLock(folder, patience=None)


def _fit(kind: Kind, folder: Path, recipe: str) -> None:
    words = ["fit", "--config", recipe, "--output", str(folder)]
    if RunFolder.newest(folder) is not None:
        words += ["--ckpt_path", "last"]
    code = run_bound([sys.executable, "-P", "-m", "scoredistill", *words], alone())
    if code in (INTERRUPTED, TERMINATED):
        raise Interrupted(f"training the {kind.part} was interrupted; the same command resumes it", code)
    if code != 0:
        raise UsageError(f"the {kind.part} could not be trained by {recipe}: see above")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
