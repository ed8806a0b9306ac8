"""Locks of folders, and children that end with their parent."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import Forked

import scoredistill
from scoredistill.processes import FolderLock, InUseError, run_bound

PARENT = """
import sys
from scoredistill.processes import run_bound
run_bound([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""
CHILD = """
import os, sys, time
from pathlib import Path
from scoredistill.processes import FolderLock, end_with_parent
end_with_parent()
lock = FolderLock(Path(sys.argv[1]))
Path(sys.argv[1], "ready").touch()
time.sleep(100)
"""


def held_by_another(folder: Path) -> Forked:
    def hold() -> None:
        FolderLock(folder)
        (folder / "ready").touch()
        time.sleep(100)

    process = Forked(hold, folder / "log.txt")
    wait_for(folder / "ready", process)
    return process


def wait_for(path: Path, process) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


def check_free(folder: Path, patience: float | None) -> None:
    """Raise InUseError if another process holds the folder for longer."""
    FolderLock(folder, patience=patience).release()


def test_a_folder_is_held_by_one_process_until_it_is_killed(tmp_path):
    process = held_by_another(tmp_path)
    with pytest.raises(InUseError, match="another process is using"):
        FolderLock(tmp_path, patience=0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_free(tmp_path, patience=0)


def test_a_waiting_process_gets_the_lock(tmp_path):
    process = held_by_another(tmp_path)
    process.send_signal(signal.SIGKILL)  # and not waited for
    check_free(tmp_path, patience=None)
    process.wait()


def test_the_lock_is_released_after_the_block_despite_forks(tmp_path):
    with FolderLock(tmp_path):
        process = Forked(lambda: time.sleep(100), tmp_path / "log.txt")
    check_free(tmp_path, patience=0)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_fork_of_a_process_that_was_killed_does_not_keep_its_lock(tmp_path):
    def hold() -> None:
        FolderLock(tmp_path)
        if os.fork() == 0:
            (tmp_path / "fork").write_text(str(os.getpid()))
        (tmp_path / "ready").touch()
        time.sleep(100)

    process = Forked(hold, tmp_path / "log.txt")
    wait_for(tmp_path / "fork", process)
    wait_for(tmp_path / "ready", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_free(tmp_path, patience=5)
    os.kill(int((tmp_path / "fork").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path, stop):
    environment = {**os.environ, "PYTHONPATH": str(Path(scoredistill.__file__).parents[1])}
    line = [sys.executable, "-c", PARENT, CHILD, str(tmp_path)]
    process = subprocess.Popen(line, env=environment)
    wait_for(tmp_path / "ready", process)
    process.send_signal(stop)
    process.wait()
    check_free(tmp_path, patience=20)  # which the child held


def test_the_exit_code_is_the_childs():
    assert run_bound([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys):
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("scoredistill.processes.fcntl.flock", none)
    with FolderLock(tmp_path):
        assert f"{tmp_path} is on a file system without locks" in capsys.readouterr().err
