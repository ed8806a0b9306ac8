"""Files that belong together: all or none."""

import signal
import subprocess
import sys

import pytest

from scoredistill.rendering.files import write_together

KILLED = """
import os, signal, sys
from pathlib import Path
from scoredistill.rendering.files import write_together

replace, calls = Path.replace, []

def kill(self, target):
    calls.append(target)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = kill
folder = Path(sys.argv[1])
write_together({folder / name: name.encode() * 1000 for name in ("a.png", "b.mtl", "c.obj")})
"""


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_written_and_nothing_else(tmp_path):
    write_together({tmp_path / "new" / "a.png": b"a", str(tmp_path / "new" / "b.obj"): b"b"})
    assert contents(tmp_path / "new") == {"a.png": b"a", "b.obj": b"b"}


@pytest.mark.parametrize("there", [{}, {"a.png": b"old a", "c.obj": b"old c"}], ids=["fresh", "over others"])
@pytest.mark.parametrize("after", range(1, 8))
def test_an_error_at_any_rename_leaves_what_was_there(there, after, tmp_path, monkeypatch):
    from pathlib import Path

    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    replace, calls = Path.replace, []

    def refuse_once(self, target):
        calls.append(target)
        if len(calls) == after:
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_once)
    files = {tmp_path / "a.png": b"a", tmp_path / "b.mtl": b"b", tmp_path / "c.obj": b"c"}
    if after > 6 + len(there):  # three into the staging folder, three out of it, and the old ones out of the way
        write_together(files)
        assert contents(tmp_path) == {"a.png": b"a", "b.mtl": b"b", "c.obj": b"c"}
        return
    with pytest.raises(OSError, match="disk full"):
        write_together(files)
    assert contents(tmp_path) == there


@pytest.mark.parametrize("at", range(1, 7))
def test_a_process_that_is_killed_leaves_whole_files_and_the_last_one_only_with_the_others(at, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(at)], check=False)
    assert done.returncode == -signal.SIGKILL
    seen = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert sorted(seen) == ["a.png", "b.mtl", "c.obj"][: max(0, at - 4)]
    assert all(content == name.encode() * 1000 for name, content in seen.items())
