"""The runner of a study: order, failures, interruptions and record, without starting processes."""

import io
import json
import signal
from pathlib import Path

import pytest
from rich.console import Console

from scoredistill.studies import runner as module
from scoredistill.studies.launchers import Job, Launched, Launcher
from scoredistill.studies.live import Display
from scoredistill.studies.record import StudyRecord
from scoredistill.studies.runner import Runner
from scoredistill.studies.study import Cell, Study


class Pretended(Launched):
    """A run that ends at the second poll, or three polls after it was stopped."""

    def __init__(self, launcher: "Pretender", job: Job) -> None:
        self.launcher, self.job, self.looks, self.left = launcher, job, 0, None

    def code(self) -> int | None:
        if self.left is not None:
            self.left -= 1
            if self.job.key in self.launcher.lost:
                raise RuntimeError("the machine is gone")
            self.launcher.events.append(f"waits for {self.job.key}")
            return None if self.left else -signal.SIGTERM
        self.looks += 1
        if self.looks < 2:
            return None
        name = self.job.key
        if name in self.launcher.interrupted_at:
            raise KeyboardInterrupt
        if name in self.launcher.lost:
            raise RuntimeError("the machine is gone")
        code = self.launcher.codes.get(name, 0)
        with self.job.log(), (self.job.folder / "log.txt").open("a") as log:
            log.write(
                "step 1/3\n" if name in self.launcher.silent else f"step 1/3\nscoredistill fit: {name} went wrong\n"
            )
        if code == 0:
            (self.job.folder / "done").touch()
        return code

    def stop(self) -> None:
        self.left = 3
        self.launcher.events.append(f"stops {self.job.key}")


class Pretender(Launcher):
    slots = 2

    def __init__(self) -> None:
        self.started: list[str] = []
        self.events: list[str] = []
        self.codes: dict[str, int] = {}
        self.lost: set[str] = set()
        self.interrupted_at: set[str] = set()
        self.full: set[str] = set()
        self.refused: set[str] = set()
        self.silent: set[str] = set()
        self.at_once: list[set[int]] = []
        self.closed = False

    def launch(self, job: Job, slot: int) -> Launched:
        if job.key in self.full:
            raise OSError(28, "No space left on device", str(job.folder))
        if job.key in self.refused:
            raise RuntimeError("too many jobs")
        self.started.append(job.key)
        job.folder.mkdir(parents=True, exist_ok=True)
        self.at_once.append({slot})
        return Pretended(self, job)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    return Study(tmp_path / "study.yaml", [], "out", [], [], [0, 1], {"a": "x"}, [], [], {})


def made(study: Study, folder: Path) -> Runner:
    cells = [Cell(f"a={value}", {"a": value}, [], key=value) for value in "xy"]
    finished = lambda place, key: "0" if (place / "done").exists() else None  # noqa: E731
    return Runner(study, cells, folder, lambda arguments: 0, finished, lambda runs: None)


def states(folder: Path) -> dict[str, str]:
    return {f"{run.settings['a']} seed {run.seed}": run.state for run in StudyRecord.read(folder).runs}


def test_every_run_runs_once(study, tmp_path):
    launcher = Pretender()
    made(study, tmp_path).run(launcher)
    assert launcher.started == ["x seed 0", "x seed 1", "y seed 0", "y seed 1"]
    assert set.union(*launcher.at_once) == {0, 1}
    assert launcher.closed
    record = StudyRecord.read(tmp_path)
    assert {run.state for run in record.runs} == {"done"}
    assert record.runs[3].run == "runs/a=y/seed-1/0"
    again = Pretender()
    made(study, tmp_path).run(again)
    assert again.started == []
    assert StudyRecord.read(tmp_path) == record


def test_failures_do_not_affect_others_and_are_repeated(study, tmp_path):
    launcher = Pretender()
    launcher.codes = {"x seed 0": 1, "x seed 1": -9}
    launcher.lost, launcher.full = {"y seed 0"}, {"y seed 1"}
    made(study, tmp_path).run(launcher)
    messages = [run.message for run in StudyRecord.read(tmp_path).runs]
    assert messages[0] == "x seed 0 went wrong"
    assert messages[1] == "killed by SIGKILL (out of memory?)"
    assert messages[2] == "the machine is gone"
    assert messages[3].endswith("seed-1: No space left on device")
    assert set(states(tmp_path).values()) == {"failed"}


def test_a_run_that_cannot_be_started_fails(study, tmp_path):
    launcher = Pretender()
    launcher.refused = {"x seed 0"}
    runner, text = made(study, tmp_path), io.StringIO()
    runner.run(launcher)
    Display(1, Console(file=text)).update(runner.runs)
    assert "x seed 0 failed: too many jobs (0 s)" in text.getvalue()  # a failure of now, not of an earlier command
    assert launcher.started == ["x seed 1", "y seed 0", "y seed 1"]
    assert StudyRecord.read(tmp_path).runs[0].message == "too many jobs"
    assert list(states(tmp_path).values()) == ["failed", "done", "done", "done"]


def test_a_failures_message_is_its_last_attempts(study, tmp_path):
    launcher = Pretender()
    launcher.codes = {"x seed 0": 1}
    made(study, tmp_path).run(launcher)
    launcher.silent = {"x seed 0"}
    made(study, tmp_path).run(launcher)
    assert StudyRecord.read(tmp_path).runs[0].message == "step 1/3"
    assert "x seed 0 went wrong" in (tmp_path / "runs/a=x/seed-0/log.txt").read_text()  # the first is there still


@pytest.mark.parametrize("lost", [set(), {"x seed 0"}])
def test_an_interruption_stops_all_active_runs(study, tmp_path, lost):
    launcher = Pretender()
    launcher.slots = 3
    launcher.interrupted_at, launcher.lost = {"x seed 0"}, lost
    with pytest.raises(KeyboardInterrupt):
        made(study, tmp_path).run(launcher)
    under_way = ["x seed 0", "x seed 1", "y seed 0"]
    assert launcher.events[:3] == [f"stops {name}" for name in under_way]
    assert launcher.events[3:] == [f"waits for {name}" for name in under_way if name not in lost for _ in range(3)]
    assert launcher.closed
    assert set(states(tmp_path).values()) == {"waiting"}


def test_a_record_that_cannot_be_written_stops_nothing(study, tmp_path, monkeypatch, capsys):
    write, full = StudyRecord.write, [True]

    def written(self, folder):
        if full[0]:
            raise OSError(28, "No space left on device", str(tmp_path / "study.json"))
        write(self, folder)

    monkeypatch.setattr(StudyRecord, "write", written)
    launcher = Pretender()
    runner = made(study, tmp_path)
    runner.run(launcher)
    assert len(launcher.started) == 4
    assert runner.unwritten is not None
    assert capsys.readouterr().err.count("No space left on device") == 1
    full[0] = False
    runner.record()
    assert runner.unwritten is None
    assert len(json.loads((tmp_path / "study.json").read_text())["runs"]) == 4
