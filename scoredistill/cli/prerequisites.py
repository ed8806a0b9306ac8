"""Trains the networks that a recipe depends on, if there are none yet."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from scoredistill.cli.errors import INTERRUPTED, TERMINATED, Interrupted, UsageError
from scoredistill.cli.ranks import SHARED, env_without_launcher
from scoredistill.files import reason
from scoredistill.networks.storage import DESCRIPTION, find_trained
from scoredistill.processes import FolderLock, InUseError, run_bound
from scoredistill.training.run_folder import RunFolder, make_folder


@dataclass(frozen=True)
class Kind:
    """A kind of network that one recipe trains for another.

    Args:
        part: the network's folder in a finished run, and its name.
        marker: a file that identifies this folder.
    """

    part: str
    marker: str


KINDS = {
    "folder": Kind("teacher", DESCRIPTION),
    "model": Kind("pipeline", "model_index.json"),
    "autoencoder": Kind("autoencoder", "config.json"),
}
"""By the setting with the folder; the setting `trained_by` names the recipe."""


def train_what_is_missing(model: Namespace) -> None:
    """Run the recipes in `trained_by` of all missing networks, or resume them if they were interrupted.

    Args:
        model: the settings of a parsed recipe's model, including those of its teacher.

    Raises:
        UsageError: if a training fails; its message is printed above.
        Interrupted: if a training was stopped.
    """
    teacher = model.get("teacher")
    of_teacher = teacher.get("init_args") if isinstance(teacher, Namespace) else None
    for settings in (model, of_teacher or Namespace()):
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
    """Train the network, unless another process of this run does, or another run has once the folder is unlocked."""
    if SHARED in os.environ:
        return
    try:
        make_folder(folder)
        lock = _lock(kind, folder)
    except OSError as error:
        raise UsageError(f"cannot write into {reason(error, folder)}") from error
    with lock:
        if find_trained(folder, kind.part, kind.marker) is None:
            _print(f"there is no {kind.part} in {folder} yet: training it with {recipe}")
            _fit(kind, folder, recipe)
    _print(f"the {kind.part} is trained: continuing with the recipe that needs it")


def _lock(kind: Kind, folder: Path) -> FolderLock:
    try:
        return FolderLock(folder, patience=0)
    except InUseError:
        _print(f"another process is training the {kind.part} in {folder}: waiting for it")
        return FolderLock(folder, patience=None)


def _fit(kind: Kind, folder: Path, recipe: str) -> None:
    words = ["fit", "--config", recipe, "--output", str(folder)]
    if RunFolder.newest(folder) is not None:
        words += ["--ckpt_path", "last"]
    code = run_bound([sys.executable, "-P", "-m", "scoredistill", *words], env_without_launcher())
    if code in (INTERRUPTED, TERMINATED):
        raise Interrupted(f"training the {kind.part} was interrupted; run the same command to resume", code)
    if code != 0:
        raise UsageError(f"the {kind.part} could not be trained with {recipe}: see the message above")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
