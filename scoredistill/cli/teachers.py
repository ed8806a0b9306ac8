"""The networks that a recipe builds on, trained first where there are none yet."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError
from scoredistill.cli.processes import SHARED, alone
from scoredistill.networks.storage import DESCRIPTION, find_trained
from scoredistill.training.run_folder import RunFolder


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
                _train(kind.part, folder, recipe)


def _train(part: str, folder: str, recipe: str) -> None:
    if SHARED in os.environ:  # another process of this run does it
        return
    sys.stdout.write(f"there is no {part} in {folder} yet: training it by {recipe}\n")
    sys.stdout.flush()
    words = ["fit", "--config", recipe, "--output", folder]
    if RunFolder.newest(folder) is not None:
        words += ["--ckpt_path", "last"]
    if subprocess.run([sys.executable, "-m", "scoredistill", *words], check=False, env=alone()).returncode != 0:
        raise UsageError(f"the {part} could not be trained by {recipe}: see above")
    sys.stdout.write(f"the {part} is trained: now what needs it\n")
    sys.stdout.flush()
