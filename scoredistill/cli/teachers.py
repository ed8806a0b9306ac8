"""The teacher that a recipe names, trained first where there is none yet."""

from __future__ import annotations

import os
import subprocess
import sys

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError
from scoredistill.cli.workspace import SHARED
from scoredistill.teachers.edm import find_teacher
from scoredistill.training.run_folder import RunFolder


def train_missing_teacher(teacher: Namespace | None) -> None:
    """Run the recipe that `trained_by` names, unless `folder` holds a teacher already; go on where it was interrupted.

    Args:
        teacher: class and arguments of the teacher in a parsed recipe.

    Raises:
        UsageError: if the training fails; its own message stands above.
    """
    settings = teacher.get("init_args") if isinstance(teacher, Namespace) else None
    folder, recipe = (None, None) if settings is None else (settings.get("folder"), settings.get("trained_by"))
    if folder is None or recipe is None or find_teacher(folder) is not None or SHARED in os.environ:
        return
    sys.stdout.write(f"there is no teacher in {folder} yet: training it by {recipe}\n")
    sys.stdout.flush()
    words = ["fit", "--config", recipe, "--output", folder]
    if RunFolder.newest(folder) is not None:
        words += ["--ckpt_path", "last"]
    if subprocess.run([sys.executable, "-m", "scoredistill", *words], check=False).returncode != 0:
        raise UsageError(f"the teacher could not be trained by {recipe}: see above")
    sys.stdout.write("the teacher is trained: now the student\n")
    sys.stdout.flush()
