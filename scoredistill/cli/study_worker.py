"""python -m scoredistill.cli.study_worker FOLDER KEY WORDS...: one run of a study, in a process of its own.

The same key again goes on where a run was stopped, and does nothing once it has finished. FOLDER holds the numbered run
folder, run.json with what was asked, and a lock, by which no two processes are at the same run.
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
    """Run it.

    Args:
        argv: the folder, the key, and the options of `fit` but --output and --ckpt_path.

    Returns:
        The exit code of `fit`.
    """
    folder, key, words = Path(argv[0]), argv[1], argv[2:]
    end_with_parent()
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, patience=None):  # one of a study that was killed may take a moment to end
        remove_partial(folder)
        attempt = attempt_at(folder, key)
        if attempt.finished is not None:
            return 0
        line = ["fit", *words, "--output", str(folder), *(["--ckpt_path", "last"] if attempt.goes_on else [])]
        update_json(folder / NOTE, dict)  # a damaged one is set aside
        write_json_atomically(folder / NOTE, attempt.begun)
        code = _fit(line)
        if code == 0 and (run := newest(folder)) is not None:
            write_json_atomically(folder / NOTE, attempt.ended(run))
    return code


def attempt_at(folder: Path, key: str) -> Attempt:
    """What is known of a run of a study.

    Args:
        folder: its own.
        key: of what is asked for.
    """
    return Attempt({"key": key}, read_note(folder / NOTE, folder), folder)


def newest(folder: Path) -> Path | None:
    """The numbered run folder of the highest number, whatever is in it; None where there is none."""
    return max((path for path in folder.glob("*/") if path.name.isdecimal()), key=lambda p: int(p.name), default=None)


def _fit(line: list[str]) -> int:
    from scoredistill.cli import main as run  # takes seconds

    return run(line)


if __name__ == "__main__":
    start_up.prepare()
    sys.exit(main(sys.argv[1:]))
