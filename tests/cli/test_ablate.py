"""scoredistill ablate, from the file to the report. Runs execute in this process, except those that the tests kill."""

import csv
import fcntl
import importlib.util
import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import Forked

import scoredistill
from scoredistill.__main__ import main
from scoredistill.processes import FolderLock
from scoredistill.studies.record import StudyRecord

STUDY = """\
recipe: points.yaml
output: out
options:
  trainer.logger: true
  trainer.log_every_n_steps: 1
  trainer.callbacks: [ModeStatistics]
axes:
  objective:
    SDS: {model.loss: SDS}
    VSD: {model.loss: VSD, model.loss.critic: ParticleCritic}
seeds: 2
launcher: inline.Inline
"""
INLINE = """\
from contextlib import redirect_stderr, redirect_stdout

from scoredistill.studies.launchers import Launched, Launcher


class Ended(Launched):
    def __init__(self, code):
        self.ended = code

    def code(self):
        return self.ended

    def stop(self):
        pass


class Inline(Launcher):
    slots = 1

    def launch(self, job, slot):
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "log.txt", "a") as log, redirect_stdout(log), redirect_stderr(log):
            return Ended(job.entry(job.arguments))
"""
FAILING = """\
import os

from pytorch_lightning import Callback


class Fail(Callback):
    def on_train_batch_end(self, trainer, module, *rest):
        if "FAIL" in os.environ and type(module.distiller.loss).__name__ == "VSD":
            raise FloatingPointError("the gradient is not finite")
"""
SLOWLY = """\
import time

from pytorch_lightning import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *rest):
        time.sleep(0.1)
"""


@pytest.fixture
def study(folder):
    (folder / "study.yaml").write_text(STUDY)
    (folder / "inline.py").write_text(INLINE)
    return folder / "out"


def runs(study: Path) -> dict[str, str]:
    return {f"{run.cell} {run.seed}": run.state for run in StudyRecord.read(study).runs}


def particles(run: Path) -> torch.Tensor:
    return torch.load(run / "checkpoints/last.ckpt")["state_dict"]["distiller.generator.values"]


def test_a_study_runs_from_file_to_report(cli, folder, study):
    result = cli("ablate", "study.yaml")
    assert result.code == 0, result.err
    assert set(runs(study).values()) == {"done"}
    assert "4/4 objective=VSD seed 1 done" in result.out
    assert "report: out/report.html" in result.out
    assert (study / "report.html").is_file()
    assert (study / "study.yaml").read_text() == STUDY
    # Each is an ordinary run, with the same result as `scoredistill fit`.
    run = study / "runs/objective=VSD/seed-1/0"
    assert {"config.yaml", "metrics.json", "versions.json", "cost.json", "checkpoints"} <= {
        p.name for p in run.iterdir()
    }
    words = ["--trainer.logger", "true", "--trainer.log_every_n_steps", "1", "--model.loss", "VSD"]
    words += ["--model.loss.critic", "ParticleCritic", "--seed_everything", "1", "--output", "hand"]
    assert cli("fit", "--config", "points.yaml", *words).code == 0
    assert torch.equal(particles(run), particles(folder / "hand/0"))
    # The second time, no run starts.
    before = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/*/0/metrics.json")}
    result = cli("ablate", "study.yaml")
    assert result.code == 0
    assert "done (" not in result.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with (study / "results.csv").open() as file:
        assert {row["state"] for row in csv.DictReader(file)} == {"done"}
    assert cli("report", "out").code == 0


def test_changed_cells_run_again_and_old_runs_are_kept(cli, folder, study):
    assert cli("ablate", "study.yaml").code == 0
    changed = STUDY.replace(
        "{model.loss: SDS}", "{model.loss: SDS, model.timesteps: UniformTimesteps, model.timesteps.low: 0.1}"
    )
    (folder / "study.yaml").write_text(changed)
    result = cli("ablate", "study.yaml")
    assert result.code == 0, result.err
    assert result.out.count("done (") == 2
    assert sorted(path.name for path in (study / "runs/objective=SDS/seed-0").glob("[0-9]")) == ["0", "1"]
    assert [path.name for path in (study / "runs/objective=VSD/seed-0").glob("[0-9]")] == ["0"]
    # A recipe with changed content is a different recipe too.
    (folder / "points.yaml").write_text((folder / "points.yaml").read_text().replace("max_steps: 3", "max_steps: 4"))
    assert cli("ablate", "study.yaml").out.count("done (") == 4
    # The study can be moved.
    study.rename(folder / "moved")
    assert "done (" not in cli("ablate", "study.yaml", "--output", "moved").out


def test_a_different_start_is_a_different_run(cli, folder, study):
    """`start_from` changes the result of a run, like any other option."""
    from scoredistill.cli.run_key import Resolver

    keys = [Resolver().key(["--config=points.yaml", *words]) for words in ([], ["--start_from=a"], ["--start_from=b"])]
    assert len(set(keys)) == 3
    others = (["--output=other"], ["--checkpoint_every=7"])
    assert {Resolver().key(["--config=points.yaml", *words]) for words in others} == {keys[0]}


def test_a_failing_cell_does_not_affect_others(cli, folder, study, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    (folder / "failing.py").write_text(FAILING)
    (folder / "study.yaml").write_text(STUDY.replace("[ModeStatistics]", "[ModeStatistics, failing.Fail]"))
    result = cli("ablate", "study.yaml")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(
        "scoredistill ablate: 2 of 4 runs failed; objective=VSD seed 0: the gradient is not finite (full output"
    )
    assert list(runs(study).values()) == ["done", "done", "failed", "failed"]
    assert "the gradient is not finite" in (study / "report.md").read_text()
    # The same command repeats the runs after the error is fixed.
    monkeypatch.delenv("FAIL")
    result = cli("ablate", "study.yaml")
    assert result.code == 0, result.err
    assert result.out.count("done (") == 2


def test_a_full_disk_fails_only_its_run(cli, folder, study, monkeypatch):
    from scoredistill.training import checkpoints

    write = checkpoints.write_atomically

    def full(path, writer):
        if "seed-1" in str(path):
            raise OSError(28, "No space left on device", str(path))
        write(path, writer)

    monkeypatch.setattr(checkpoints, "write_atomically", full)
    result = cli("ablate", "study.yaml")
    assert result.code == 1
    assert list(runs(study).values()) == ["done", "failed", "done", "failed"]
    messages = [run.message for run in StudyRecord.read(study).runs if run.state == "failed"]
    assert all(message.endswith("No space left on device") for message in messages)


def test_a_disk_full_at_the_report(cli, study, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder / "report.html"))

    monkeypatch.setattr("scoredistill.cli.ablate.write_report", full)
    result = cli("ablate", "study.yaml")
    assert result.code == 1
    assert "out/report.html: No space left on device; fix it, and run the same command to resume" in result.err
    assert set(runs(study).values()) == {"done"}


def test_a_folder_that_cannot_be_created(cli, folder, study):
    (folder / "taken").touch()
    result = cli("ablate", "study.yaml", "--output", "taken/out")
    assert result.code == 2
    assert "choose another --output" in result.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{model.loss: SDS}", "{model.los: SDS}"), "model.los: model has no key 'los'. Did you mean 'loss'"),
        (("{model.loss: SDS}", "{model.loss: SDD}"), "there is no Objective called 'SDD'"),
        (("{model.loss: SDS}", "nowhere.yaml"), "'nowhere.yaml' is neither a file nor a shipped recipe"),
        (("inline.Inline", "LocalProcess"), "no Launcher called 'LocalProcess'. Did you mean 'LocalProcesses'"),
        (("inline.Inline", "{class_path: LocalProcesses, init_args: {processes: 0}}"), "processes must be at least 1"),
        (("inline.Inline", "{class_path: LocalProcesses, init_args: {cores: 1}}"), "has no option 'cores'"),
        (("recipe: points.yaml", "recipe: point.yaml"), "point.yaml' is neither a file nor a shipped recipe"),
    ],
)
def test_errors_are_reported_before_any_run_starts(cli, folder, study, change, said):
    text = STUDY.replace(*change)
    assert text != STUDY
    (folder / "study.yaml").write_text(text)
    result = cli("ablate", "study.yaml")
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not study.exists()


def test_a_missing_library_is_named(cli, folder, study, monkeypatch):
    for library, name in (("ray", "Ray"), ("submitit", "Slurm")):
        monkeypatch.setitem(sys.modules, library, None)
        result = cli("ablate", "study.yaml", "--launcher", name)
        assert result.code == 2
        assert f"install scoredistill[{name.lower()}]" in result.err
        assert not study.exists()


def test_two_concurrent_studies_are_refused(cli, study, monkeypatch):
    monkeypatch.setattr(FolderLock.__init__, "__defaults__", (0.0,))
    study.mkdir()
    with (study / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = cli("ablate", "study.yaml")
    assert result.code == 2
    assert "another ablate is running in out" in result.err


def test_commands_can_be_listed(cli, study):
    result = cli("ablate", "study.yaml", "--dry_run")
    assert result.code == 0
    assert len(result.out.splitlines()) == 4
    assert "objective=VSD seed 1: scoredistill fit --config=points.yaml" in result.out
    assert not study.exists()
    for words in ([], ["--output", "out", "study.yaml"]):
        assert "name the study's file first" in cli("ablate", *words).err
    assert cli("ablate", "--help").code == 0
    assert cli("report", "nowhere").code == 2


def started(folder: Path, *words: str) -> Forked:
    # Settings for the processes of Ray and submitit; Ray would start its own with `uv run` again.
    environment = {"PYTHONPATH": str(Path(scoredistill.__file__).parents[1]), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return Forked(lambda: main(["ablate", "study.yaml", *words]), folder / "log.txt", environment, torch.float32)


def complete(folder: Path, *words: str) -> None:
    process = started(folder, *words)
    assert process.wait() == 0, process.said


def until(happened, process) -> None:
    while not happened():
        assert process.poll() is None
        time.sleep(0.02)


def finished(place: Path) -> bool:
    note = place / "run.json"
    return note.is_file() and "run" in json.loads(note.read_text())


SLOW = STUDY.replace("launcher: inline.Inline", "launcher: {class_path: LocalProcesses, init_args: {processes: 1}}")
SLOW = SLOW.replace(
    "[ModeStatistics]", "[ModeStatistics, slowly.Slowly]\n  trainer.max_steps: 16\n  checkpoint_every: 2"
)


@pytest.mark.slow
def test_a_stopped_study_resumes_bit_for_bit(folder, study):
    """The study is stopped in its second run, and killed in its third without a signal to its runs."""
    (folder / "study.yaml").write_text(SLOW)
    (folder / "slowly.py").write_text(SLOWLY)
    places = [
        study / "runs" / name for name in ("objective=SDS/seed-0", "objective=SDS/seed-1", "objective=VSD/seed-0")
    ]
    for number, stop in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        process = started(folder)
        until((places[number] / "0/checkpoints/last.ckpt").exists, process)
        before = {path: path.stat().st_mtime_ns for place in places[:number] for path in place.glob("0/*.json")}
        process.send_signal(stop)
        assert process.wait() == {signal.SIGTERM: 143}.get(stop, -stop)
        assert ("run the same command to resume" in process.said) == (stop == signal.SIGTERM)
        with (places[number] / ".lock").open("a") as file:  # which is free as soon as the run has ended
            waited = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            assert time.monotonic() - waited < 5
        assert [finished(place) for place in places[: number + 1]] == [True] * number + [False]
    complete(folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for place in places[1:]:
        assert [path.name for path in place.glob("[0-9]")] == ["0"]
        assert len(json.loads((place / "0/versions.json").read_text())) == 2

    complete(folder, "--output", "whole")
    for place in study.glob("runs/*/*/0"):
        whole = folder / "whole" / place.relative_to(study)
        assert torch.equal(particles(place), particles(whole))
        assert metrics(place) == metrics(whole)


def metrics(run: Path) -> dict[str, float]:
    known = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in known.items() if name != "seconds"}


@pytest.mark.slow
def test_all_launchers_give_the_same_results(folder, study):
    (folder / "study.yaml").write_text(
        STUDY.replace("inline.Inline", "LocalProcesses")
        .replace("seeds: 2", "seeds: [3]")
        .replace("    SDS: {model.loss: SDS}\n", "")
    )
    complete(folder)
    others = {"ray": ["--launcher", "Ray"], "submitit": ["--launcher", "Slurm", "--launcher.cluster", "local"]}
    for library, words in others.items():
        if importlib.util.find_spec(library) is None:
            continue
        complete(folder, "--output", library, *words)
        assert set(runs(folder / library).values()) == {"done"}
        for place in study.glob("runs/*/*/0"):
            other = folder / library / place.relative_to(study)
            assert torch.equal(particles(place), particles(other))
            assert metrics(place) == metrics(other)


MINE = """\
from own_half import HALF
from scoredistill.losses import ScoreDistillation


class Mine(ScoreDistillation):
    def baseline(self, diffused, teacher, guidance):
        return HALF * diffused.epsilon
"""


def test_cells_whose_code_has_changed_are_run_again(cli, folder, study, monkeypatch):
    (folder / "own_loss.py").write_text(MINE)
    (folder / "own_half.py").write_text("HALF = 0.5\n")
    (folder / "study.yaml").write_text(STUDY.replace("    VSD:", "    Mine: {model.loss: own_loss.Mine}\n    VSD:"))
    assert cli("ablate", "study.yaml").code == 0
    assert "done (" not in cli("ablate", "study.yaml").out
    (folder / "own_half.py").write_text("HALF = 0.25\n")
    for name in ("own_loss", "own_half"):  # as in a process of its own
        monkeypatch.delitem(sys.modules, name)
    result = cli("ablate", "study.yaml")
    assert result.code == 0, result.err
    said = [line for line in result.out.splitlines() if "changed" in line]
    assert said == ["objective=Mine: own_half.py has changed, running it again"]
    assert result.out.count("done (") == 2
    first, second = (particles(study / f"runs/objective=Mine/seed-0/{number}") for number in range(2))
    assert not torch.equal(first, second)
    assert "changed" not in cli("ablate", "study.yaml").out
