"""What runs a study: order, failures, interruptions, and the record; no process is started here."""

import json
from pathlib import Path

import pytest

from scoredistill.studies import runner as module
from scoredistill.studies.cells import Cell
from scoredistill.studies.launchers import Job, Launched, Launcher
from scoredistill.studies.record import StudyRecord
from scoredistill.studies.runner import Runner
from scoredistill.studies.study import Study


class Pretended(Launched):
    """A run that ends at the second look."""

    def __init__(self, launcher: "Pretender", job: Job) -> None:
        self.launcher, self.job, self.looks = launcher, job, 0

    def code(self) -> int | None:
        self.looks += 1
        if self.looks < 2:
            return None
        name = self.job.key
        if name in self.launcher.interrupted_at:
            raise KeyboardInterrupt
        if name in self.launcher.lost:
            raise RuntimeError("the machine is gone")
        code = self.launcher.codes.get(name, 0)
        (self.job.folder / "log.txt").write_text(f"step 1/3\nscoredistill fit: {name} went wrong\n")
        if code == 0:
            (self.job.folder / "done").touch()
        return code

    def stop(self) -> None:
        self.launcher.stopped.append(self.job.key)


class Pretender(Launcher):
    slots = 2

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.codes: dict[str, int] = {}
        self.lost: set[str] = set()
        self.interrupted_at: set[str] = set()
        self.full: set[str] = set()
        self.at_once: list[set[int]] = []
        self.closed = False

    def launch(self, job: Job, slot: int) -> Launched:
        if job.key in self.full:
            raise OSError(28, "No space left on device", str(job.folder))
        self.started.append(job.key)
        job.folder.mkdir(parents=True)
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
    return Runner(study, cells, folder, finished, lambda runs: None)


def states(folder: Path) -> dict[str, str]:
    return {f"{run.settings['a']} seed {run.seed}": run.state for run in StudyRecord.read(folder).runs}


def test_everything_is_run_once(study, tmp_path):
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


def test_failures_are_kept_apart_and_tried_again(study, tmp_path):
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


def test_an_interruption_tells_what_is_under_way(study, tmp_path):
    launcher = Pretender()
    launcher.interrupted_at = {"x seed 1"}
    with pytest.raises(KeyboardInterrupt):
        made(study, tmp_path).run(launcher)
    assert launcher.stopped == ["x seed 1"]
    assert launcher.closed
    assert states(tmp_path) == {"x seed 0": "done", "x seed 1": "waiting", "y seed 0": "waiting", "y seed 1": "waiting"}


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
