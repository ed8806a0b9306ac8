"""python -m scoredistill.cli.study_worker FOLDER KEY WORDS...: one run of a study in a separate process.

The same key resumes a stopped run, and does nothing after it has finished. FOLDER contains the numbered run folder,
run.json with the request, and a lock, so that only one process works on the run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from scoredistill import start_up
from scoredistill.cli.attempts import Attempt, read_note
from scoredistill.files import remove_partial, update_json, write_json_atomically
from scoredistill.processes import FolderLock, end_with_parent

NOTE = "run.json"


def main(argv: Sequence[str]) -> int:
    """Execute the run.

    Args:
        argv: the folder, the key, and the options of `fit` without --output and --ckpt_path.

    Returns:
        The exit code of `fit`.
    """
    folder = Path(argv[0])
    key = argv[1]
    words = argv[2:]
    end_with_parent()
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, patience=None):  # a process of a killed study may take a moment to end
        remove_partial(folder)
        attempt = attempt_at(folder, key)
        if attempt.finished is not None:
            return 0
        line = ["fit", *words, "--output", str(folder), *(["--ckpt_path", "last"] if attempt.goes_on else [])]
        update_json(folder / NOTE, dict)  # sets a damaged file aside
        write_json_atomically(folder / NOTE, attempt.begun)
        code = _fit(line)
        if code == 0 and (run := last_folder(folder)) is not None:
            write_json_atomically(folder / NOTE, attempt.ended(run))
    return code


def attempt_at(folder: Path, key: str) -> Attempt:
    """The attempt at a run of a study.

    Args:
        folder: of the run.
        key: of the requested recipe.
    """
    return Attempt({"key": key}, read_note(folder / NOTE, folder), folder)


def last_folder(folder: Path) -> Path | None:
    """The run folder with the highest number, with any content; None if there is none."""
    return max((path for path in folder.glob("*/") if path.name.isdecimal()), key=lambda p: int(p.name), default=None)


def _fit(line: list[str]) -> int:
    from scoredistill.cli import main as run  # the import takes seconds

    return run(line)


if __name__ == "__main__":
    start_up.prepare()
    sys.exit(main(sys.argv[1:]))
