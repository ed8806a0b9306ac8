"""Recipes that start from the result of another: fit --start_from, and scoredistill stages."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from forks import Forked

from scoredistill.__main__ import main
from scoredistill.cli import stages as command

STAGES = """\
output: runs/chain
stages:
  first: [points.yaml]
  second: [points.yaml, colder.yaml]
"""
COLDER = "model: {generator_optimizer: {optimizer: {class_path: Adam, init_args: {lr: 0.01}}}}\n"


@pytest.fixture
def chain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A file of two stages, and the list of fit's arguments. fit runs in this process, which is faster."""
    (folder / "chain.yaml").write_text(STAGES)
    (folder / "colder.yaml").write_text(COLDER)
    asked: list[list[str]] = []

    def run(words: list[str]) -> int:
        asked.append(words[4:])
        return main(words[4:])

    monkeypatch.setattr(command, "run_bound", run)
    return asked


def particles(run: str | Path) -> torch.Tensor:
    return torch.load(Path(run) / "checkpoints/last.ckpt")["state_dict"]["distiller.generator.values"]


def test_a_run_starts_from_the_generator_of_another_run(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    still = [
        "--model.generator_optimizer.optimizer",
        "{class_path: SGD, init_args: {lr: 1.0e-60}}",
    ]  # nothing in float32
    for source in ("runs/points", "runs/points/0", "runs/points/0/checkpoints/last.ckpt"):
        result = cli("fit", "--config", "points.yaml", "--start_from", source, "--output", "out", *still)
        assert result.code == 0, result.err
    first = particles("runs/points/0")
    for number in range(3):
        assert torch.equal(particles(f"out/{number}"), first)
        made = json.loads(Path(f"out/{number}/versions.json").read_text())[0]
        assert made["started_from"] == "runs/points/0/checkpoints/last.ckpt"
    # A resumed run has its own particles, and not those that it started from.
    moving = ["--model.generator_optimizer.optimizer", "{class_path: SGD, init_args: {lr: 0.1}}"]
    words = ["--config", "points.yaml", "--start_from", "runs/points", "--output", "moved", *moving]
    assert cli("fit", *words).code == 0
    moved = particles("moved/0")
    assert cli("fit", *words, "--ckpt_path", "last").code == 0
    assert torch.equal(particles("moved/0"), moved)
    assert not torch.equal(moved, first)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start_from", "nowhere"], "no checkpoint and no run folder nowhere"),
        (["--start_from", "runs/points", "--model.generator.init_args.init", "[[0.0, 0.0]]"], "cannot start from this"),
    ],
)
def test_starts_that_do_not_fit_are_refused(cli, folder, words, said):
    assert cli("fit", "--config", "points.yaml").code == 0
    result = cli("fit", "--config", "points.yaml", "--output", "out", *words)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not (folder / "out").exists()


def test_every_stage_starts_from_the_previous_one(cli, folder, chain):
    words = ["chain.yaml", "--trainer.log_every_n_steps", "1", "--second.trainer.max_steps=5"]
    result = cli("stages", *words)
    assert result.code == 0, result.err
    first, second = chain
    assert "--start_from" not in first
    assert second[second.index("--start_from") + 1] == "runs/chain/first/0"
    assert [
        torch.load(f"runs/chain/{name}/checkpoints/last.ckpt")["global_step"] for name in ("first/0", "second/0")
    ] == [3, 5]
    assert "scoredistill export runs/chain/second/0" in result.out

    # `scoredistill fit` gives the same.
    by_hand = ["--start_from", "runs/chain/first/0", "--config", "points.yaml", "--config", "colder.yaml"]
    assert cli("fit", *by_hand, "--trainer.max_steps", "5", "--output", "hand").code == 0
    assert torch.equal(particles("hand/0"), particles("runs/chain/second/0"))

    # The second time there is nothing to do. With another second stage, the first one is kept.
    result = cli("stages", *words)
    assert result.code == 0
    assert len(chain) == 2
    assert "first is finished, runs/chain/first/0" in result.out
    assert cli("stages", *words[:-1], "--second.trainer.max_steps=4").code == 0
    assert [call[-1] for call in chain[2:]] == ["runs/chain/first/0"]
    assert torch.load("runs/chain/second/1/checkpoints/last.ckpt")["global_step"] == 4
    # With another first stage, the second one starts again too.
    assert cli("stages", *words, "--seed_everything", "1").code == 0
    assert len(chain) == 5
    assert (folder / "runs/chain/second/2/config.yaml").is_file()


def test_a_stage_whose_recipe_or_code_has_changed_is_run_again(cli, folder, chain):
    (folder / "stopping.py").write_text(STOPPING)
    words = ["chain.yaml", "--first.trainer.callbacks+=stopping.Stop"]
    assert cli("stages", *words).code == 0
    assert len(chain) == 2
    (folder / "colder.yaml").write_text(COLDER.replace("0.01", "0.02"))
    assert cli("stages", *words).code == 0
    assert len(chain) == 3
    (folder / "stopping.py").write_text(STOPPING + "# changed\n")
    result = cli("stages", *words)
    assert result.code == 0
    assert "stage 1 of 2: first again: changed stopping.py" in result.out
    assert len(chain) == 5  # and the second one, which starts from it


def test_a_failed_stage_is_resumed(cli, folder, chain, monkeypatch):
    (folder / "stopping.py").write_text(STOPPING)
    words = [
        "chain.yaml",
        "--second.trainer.callbacks+=stopping.Stop",
        "--second.trainer.max_steps=6",
        "--checkpoint_every=2",
    ]
    monkeypatch.setenv("STOP_AT", "4")
    result = cli("stages", *words)
    assert result.code == 2
    assert "stage second failed, see the message above; run the same command to resume" in result.err
    monkeypatch.delenv("STOP_AT")
    assert cli("stages", *words).code == 0
    assert len(chain) == 3
    assert chain[-1][-2:] == ["--ckpt_path", "last"]
    assert sorted(path.name for path in (folder / "runs/chain/second").iterdir()) == ["0"]
    whole = particles("runs/chain/second/0")
    assert cli("stages", *words, "--output", "whole").code == 0
    assert torch.equal(particles("whole/second/0"), whole)


STOPPING = """\
import os

from pytorch_lightning import Callback


class Stop(Callback):
    def on_train_batch_end(self, trainer, *rest):
        if str(trainer.global_step) == os.environ.get("STOP_AT"):
            raise RuntimeError("stopped")
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stages: {}\n", "needs `stages:`"),
        ("stages: {first: points.yaml}\n", "needs `stages:`"),
        ("model: {}\n", "needs `stages:`"),
        ("stages: {first: [points.yaml]}\ntrainer: {}\n", "there is no 'trainer' beside output and stages"),
        ("stages: [\n", "expected"),
    ],
)
def test_a_file_without_stages_is_refused(cli, folder, content, said):
    (folder / "chain.yaml").write_text(content)
    result = cli("stages", "chain.yaml")
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not (folder / "runs").exists()


def test_a_missing_file_or_recipe_is_named(cli, folder, chain):
    assert "neither a file nor a shipped recipe" in cli("stages", "elsewhere.yaml").err
    (folder / "chain.yaml").write_text("stages: {first: [elsewhere.yaml]}\n")
    result = cli("stages", "chain.yaml")
    assert result.code == 2
    assert "'elsewhere.yaml' is neither a file nor a shipped recipe" in result.err


@pytest.mark.slow
@pytest.mark.usefixtures("chain")
def test_killed_stages_resume_bit_for_bit(folder):
    """The process is killed in the first stage, then in the second."""
    (folder / "slowly.py").write_text(SLOWLY)
    words = ["chain.yaml", "--checkpoint_every", "2", "--trainer.max_steps", "20", "--trainer.callbacks+=slowly.Slowly"]

    def start(output: str) -> Forked:
        return Forked(lambda: main(["stages", *words, "--output", output]), folder / "log.txt")

    assert start("whole").wait() == 0
    for stage in ("first", "second"):
        process = start("killed")
        while not (folder / f"killed/{stage}/0/checkpoints/last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("killed").wait() == 0
    for stage in ("first", "second"):
        runs = [folder / output / stage / "0" for output in ("killed", "whole")]
        assert torch.equal(*map(particles, runs))
        assert len(list(runs[0].parent.iterdir())) == 1


SLOWLY = """\
import time

from pytorch_lightning import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *rest):
        time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_stages_killed_between_two_resume_bit_for_bit(cli, folder, chain, write):
    """The process is killed before a stage begins, or between its end and the note about it."""
    (folder / "colder.yaml").write_text(COLDER)
    words, written, kept = ["chain.yaml", "--output", "killed"], [], command.write_json_atomically

    def killed(*given: object) -> None:
        written.append(given)
        if len(written) == write:
            os.kill(os.getpid(), signal.SIGKILL)
        kept(*given)

    def stages() -> int:
        command.write_json_atomically = killed
        return main(["stages", *words])

    process = Forked(stages, folder / "log.txt")
    assert process.wait() == -signal.SIGKILL, process.said
    ended = sorted(path.parents[1].name for path in folder.glob("killed/*/0/config.yaml"))
    assert ended == [[], ["first"], ["first"], ["first", "second"]][write - 1]

    assert cli("stages", *words).code == 0
    assert cli("stages", "chain.yaml", "--output", "whole").code == 0
    for stage in ("first", "second"):
        assert torch.equal(particles(f"killed/{stage}/0"), particles(f"whole/{stage}/0"))
        assert [path.name for path in (folder / "killed" / stage).iterdir()] == ["0"]
