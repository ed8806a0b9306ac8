"""A command on several processes, started by torchrun and by Lightning."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import torchrun

from scoredistill.__main__ import main

RECIPE = """\
model:
  generator: {class_path: ImageParticles, init_args: {init: {class_path: GaussianInit, init_args: {particles: 4, shape: [2]}}}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}
  loss: {class_path: VSD, init_args: {critic: ParticleCritic}}
  ema: 0.9
trainer: {max_steps: 6, accelerator: cpu, callbacks: [ModeStatistics, ParticleGrid], log_every_n_steps: 1}
"""  # noqa: E501
SPLIT = ["--trainer.strategy", "split_particles", "--trainer.devices", "2"]


@pytest.fixture
def recipe(folder: Path) -> list[str]:
    (folder / "points.yaml").write_text(RECIPE)
    return ["fit", "--config", "points.yaml"]


def state(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def metrics(run: Path) -> dict[str, float]:
    known = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in known.items() if name != "seconds"}


def said(folder: Path) -> str:
    return (folder / "rank_0.txt").read_text() + (folder / "rank_1.txt").read_text()


def test_all_write_into_one_folder_and_see_all_particles(cli, folder, recipe):
    assert cli(*recipe, "--output", "one").code == 0
    assert torchrun(2, lambda rank: main([*recipe, "--output", "two", *SPLIT]), folder) == [0, 0], said(folder)
    assert [path.name for path in (folder / "two").iterdir()] == ["0"]
    for name, value in state(folder / "one/0").items():
        torch.testing.assert_close(state(folder / "two/0")[name], value, rtol=1e-9, atol=1e-12)
    assert metrics(folder / "two/0") == pytest.approx(metrics(folder / "one/0"))
    lines = [(folder / name / "0/logs/version_0/metrics.csv").read_text().splitlines() for name in ("one", "two")]
    assert lines[0][0] == lines[1][0]
    for one, two in zip(*(rows[1:] for rows in lines), strict=True):  # means over the processes
        assert [float(n or 0) for n in two.split(",")] == pytest.approx([float(n or 0) for n in one.split(",")])
    # The run resumes in one process, and the other way round, in the same folder.
    assert cli("fit", "--ckpt_path", "two/0", "--trainer.max_steps", "8", "--trainer.devices", "1").code == 0
    words = [*recipe, "--output", "one", "--ckpt_path", "last", "--trainer.max_steps", "8", *SPLIT]
    assert torchrun(2, lambda rank: main(words), folder) == [0, 0], said(folder)
    for name, value in state(folder / "one/0").items():
        torch.testing.assert_close(state(folder / "two/0")[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.generator.init_args.init.init_args.particles", "3"], "particles: 3 cannot be split evenly over 2"),
        (["--model.generator.init_args.per_step", "2"], "per_step: randomly chosen particles cannot be split"),
        (["--trainer.strategi", "ddp"], "trainer has no key 'strategi'"),
        (["--ckpt_path", "nowhere"], "there is no checkpoint and no run folder nowhere"),
    ],
)
def test_errors_are_reported_and_nothing_hangs(folder, recipe, words, message):
    codes = torchrun(2, lambda rank: main([*recipe, "--output", "out", *SPLIT, *words]), folder)
    assert 0 not in codes
    assert message in (folder / "rank_0.txt").read_text()
    assert not (folder / "out").exists()


STUDENT = """\
model:
  generator: {class_path: OneStepUNet, init_args: {shape: [2], network: {class_path: MLPBackbone, init_args: {shape: [2]}}}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0]], stds: 0.1}}
  loss: SDS
data: {class_path: ConditionDataModule, init_args: {batch_size: 4}}
trainer: {max_steps: 2, accelerator: cpu}
"""  # noqa: E501


def test_only_particles_are_split(folder):
    (folder / "student.yaml").write_text(STUDENT)
    words = ["fit", "--config", "student.yaml", "--output", "out", *SPLIT]
    assert 0 not in torchrun(2, lambda rank: main(words), folder)
    assert "split_particles is for generators of particles; use ddp or fsdp2" in said(folder)


SLOWLY = """\
import time

from pytorch_lightning import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *rest):
        time.sleep(0.1)


class FailOne(Callback):
    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_rank == 1 and trainer.global_step == 3:
            raise FloatingPointError("the second process has had enough")
"""


def processes_of(word: str) -> list[int]:
    """The processes on this machine whose command line contains a word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_lightning_processes_stop_together_and_resume_bit_for_bit(folder, recipe):
    """The processes are stopped, one is killed, or one fails; then torchrun resumes the run."""
    (folder / "slowly.py").write_text(SLOWLY)
    words = [*recipe, *SPLIT, "--trainer.max_steps", "40", "--checkpoint_every", "2"]
    slowly = [*words, "--trainer.callbacks+=slowly.Slowly", "--output", str(folder / "out")]

    def started() -> subprocess.Popen[bytes]:
        last = ["--ckpt_path", "last"] if (folder / "out").exists() else []
        return subprocess.Popen([sys.executable, "-m", "scoredistill", *slowly, *last], stderr=subprocess.PIPE)

    for stop, message in ((signal.SIGTERM, "To resume from its last checkpoint"), (signal.SIGKILL, "")):
        process = started()
        checkpoint, seen = folder / "out/0/checkpoints/last.ckpt", None
        while seen is None or checkpoint.stat().st_mtime_ns == seen:  # another one than it began with
            assert process.poll() is None
            time.sleep(0.05)
            if checkpoint.exists() and seen is None:
                seen = checkpoint.stat().st_mtime_ns
        children = [pid for pid in processes_of(str(folder / "out")) if pid != process.pid]
        os.kill(process.pid if stop == signal.SIGTERM else children[-1], stop)
        error = process.communicate(timeout=60)[1].decode()
        assert process.returncode == (143 if stop == signal.SIGTERM else 1), error
        assert error.count("scoredistill fit: ") == 1
        assert message in error
        while processes_of(str(folder / "out")):
            time.sleep(0.1)
    line = ["--nproc-per-node", "2", "-m", "scoredistill", *words, "--output", "out", "--ckpt_path", "last"]
    subprocess.run([Path(sys.executable).parent / "torchrun", *line], check=True, capture_output=True, timeout=120)
    torch.set_default_dtype(torch.float32)  # as in processes of their own
    assert torchrun(2, lambda rank: main([*words, "--output", "whole"]), folder) == [0, 0], said(folder)
    for name, value in state(folder / "whole/0").items():
        assert torch.equal(state(folder / "out/0")[name].to(value), value), name
    failing = [*words, "--trainer.callbacks+=slowly.FailOne", "--output", "failing"]
    codes = torchrun(2, lambda rank: main(failing), folder)
    assert codes[1] == 1
    assert "the second process has had enough" in (folder / "rank_1.txt").read_text()
