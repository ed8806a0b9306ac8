"""Two processes never train in one folder, and a killed run is resumed and not started a second time."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from cli.test_processes import processes_of
from cli.test_students import STUDENT, TEACHER
from forks import Forked

from scoredistill.__main__ import main
from scoredistill.processes import FolderLock

SLOWLY = """\
import time

from pytorch_lightning import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *rest):
        time.sleep(0.1)
"""


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(FolderLock.__init__, "__defaults__", (0.0,))


@pytest.mark.usefixtures("_impatient")
def test_a_run_in_training_can_be_read_but_not_trained_twice(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    run = folder / "runs/points/0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with FolderLock(run):
        for words in (["runs/points/0"], ["last", "--config", "points.yaml"]):
            result = cli("fit", "--ckpt_path", *words, "--trainer.max_steps", "5")
            assert result.code == 2
            assert result.err.splitlines() == [
                "scoredistill fit: runs/points/0 is being trained by another process: wait for it to end, or stop it"
            ]
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        for command in ("predict", "test", "validate"):
            assert cli(command, "--ckpt_path", run).code == 0
        # A run that starts from it writes into another folder.
        assert cli("fit", "--config", "points.yaml", "--start_from", run).code == 0
        assert cli("fit", "--ckpt_path", run, "--data.prompt", "a mug", "--trainer.max_steps", "4").code == 0
    assert cli("fit", "--ckpt_path", run, "--trainer.max_steps", "5").code == 0
    assert torch.load(run / "checkpoints/last.ckpt")["global_step"] == 5


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("words", [["stages", "chain.yaml"], ["ablate", "study.yaml"]], ids=lambda words: words[0])
def test_two_equal_commands_in_one_folder_are_refused(cli, folder, words):
    (folder / "chain.yaml").write_text("stages: {first: [points.yaml]}\noutput: out\n")
    (folder / "study.yaml").write_text("recipe: points.yaml\noutput: out\naxes: {model.loss: [SDS]}\n")
    (folder / "out").mkdir()
    with FolderLock(folder / "out"):
        result = cli(*words)
    assert result.code == 2
    assert "running in out: wait" in result.err
    assert [path.name for path in (folder / "out").iterdir()] == [".lock"]


def test_a_run_waits_for_a_teacher_that_another_run_trains(cli, folder, monkeypatch):
    (folder / "teacher.yaml").write_text(TEACHER)
    (folder / "student.yaml").write_text(STUDENT)
    assert cli("fit", "--config", "teacher.yaml", "--output", "ready").code == 0
    monkeypatch.setattr("scoredistill.cli.prerequisites.run_bound", pytest.fail)
    (folder / "teachers").mkdir()
    lock = FolderLock(folder / "teachers")

    def finish() -> None:
        (folder / "ready/0").rename(folder / "teachers/0")
        lock.release()

    timer = threading.Timer(0.5, finish)
    timer.start()
    result = cli("fit", "--config", "student.yaml")
    timer.join()
    assert result.code == 0, result.err
    assert "another process is training the teacher in teachers: waiting for it" in result.out


def test_leftovers_of_a_killed_run_are_removed_on_resume(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    run = folder / "runs/points/0"
    left = [run / f"{place}.x.{number}.partial" for number, place in enumerate(("", "checkpoints/", "logs/version_0/"))]
    others = [run / f"{place}/0/.x.1.partial" for place in ("export", "predictions", "test", "validation", "view")]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert cli("fit", "--ckpt_path", run, "--trainer.max_steps", "5").code == 0
    assert sorted(run.rglob("*.partial")) == sorted(others)  # which other commands may be writing


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("kind", ["stages", "teacher"])
def test_killing_the_parent_ends_its_training(folder, kind):
    """No process is left, and the same command resumes the run."""
    (folder / "slowly.py").write_text(SLOWLY)
    (folder / "chain.yaml").write_text("stages: {first: [slow.yaml]}\noutput: out\n")
    slow = "trainer: {max_steps: 30, accelerator: cpu, callbacks: [slowly.Slowly]}\ncheckpoint_every: 2\n"
    (folder / "slow.yaml").write_text((folder / "points.yaml").read_text().partition("trainer")[0] + slow)
    teacher = TEACHER.partition("trainer")[0] + slow
    (folder / "teacher.yaml").write_text(teacher)
    (folder / "student.yaml").write_text(STUDENT.replace("teachers", str(folder / "teachers")))
    runs = folder / ("out/first" if kind == "stages" else "teachers")
    words = ["stages", "chain.yaml"] if kind == "stages" else ["fit", "--config", "student.yaml"]

    def started() -> Forked:
        return Forked(lambda: main(words), folder / "log.txt")

    process = started()
    while not (runs / "0/checkpoints/last.ckpt").exists():
        assert process.poll() is None, process.said
        time.sleep(0.01)
    children = [pid for pid in processes_of("scoredistill") if parent_of(pid) == process.pid]
    assert len(children) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = started()
    assert again.wait() == 0, again.said
    assert not Path(f"/proc/{children[0]}").exists()
    assert [path.name for path in runs.iterdir() if path.is_dir()] == ["0"]
    assert len(json.loads((runs / "0/versions.json").read_text())) == 2
    assert torch.load(runs / "0/checkpoints/last.ckpt")["global_step"] == 30


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return os.getpid() if pid == os.getpid() else 0
