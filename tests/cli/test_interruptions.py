"""Runs that are stopped, killed and resumed."""

import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from forks import Forked

from scoredistill.__main__ import main

STOP = '''\
"""Stops a run, as Ctrl-C does."""

from pytorch_lightning import Callback


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer, *rest) -> None:
        if trainer.global_step == self.at:
            raise KeyboardInterrupt
'''

LEARNED = """\
model:
  generator: {class_path: ImageParticles, init_args: {init: {class_path: GaussianInit, init_args: {particles: 6, shape: [2]}}, per_step: 4}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}
  loss:
    class_path: VSD
    init_args:
      critic:
        class_path: NetworkCritic
        init_args: {network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 16, layers: 2}}}
  plan: {critic_steps: 2}
  generator_optimizer: {optimizer: {class_path: Adam, init_args: {lr: .01}}, warmup: 10}
  ema: 0.9
trainer: {max_steps: 60, accelerator: cpu}
checkpoint_every: 7
"""  # noqa: E501

STUDENT = """\
model:
  generator: {class_path: OneStepUNet, init_args: {shape: [2], network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 16, layers: 2}}}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1, schedule: EDMSchedule}}
  loss:
    class_path: WithGAN
    init_args:
      balance: 0.1
      loss:
        class_path: FDistill
        init_args:
          divergence: JensenShannon
          critic: {class_path: NetworkCritic, init_args: {network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 16, layers: 2}}}}
          ratio: {class_path: DiscriminatorRatio, init_args: {features: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 16, layers: 1}}, r1: 0.1}}
          ratio_normalizers: [ClampRatio, TimeBinNormalizer]
  plan: {critic_steps: 2}
  ema: 0.9
data:
  class_path: Images
  init_args:
    batch_size: 8
    source: {class_path: TeacherSamples, init_args: {teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}}}
trainer: {max_steps: 60, accelerator: cpu}
checkpoint_every: 7
"""  # noqa: E501

MESHES = """\
model:
  generator: {class_path: DMTet, init_args: {particles: 2, grid: 10, resolution: 12, regularizers: [Laplacian], encoding: {class_path: DenseGrid, init_args: {resolution: 8, channels: 4}}}}
  teacher: {class_path: Gallery, init_args: {supersample: 1}}
  loss: {class_path: VSD, init_args: {critic: ParticleCritic}}
  generator_optimizer: {optimizer: {class_path: Adam, init_args: {lr: .01}}}
  ema: 0.9
data: {class_path: PromptAndCameras, init_args: {prompt: a mug, views: 1}}
trainer: {max_steps: 60, accelerator: cpu}
checkpoint_every: 7
"""  # noqa: E501

SLOWLY = '''\
"""Gives the killer time."""

import time

from pytorch_lightning import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *rest) -> None:
        time.sleep(0.02)
'''


def stop(cli, folder, at):
    (folder / "stopper.py").write_text(STOP)
    callback = f"{{class_path: stopper.Stop, init_args: {{at: {at}}}}}"
    return cli("fit", "--config", "points.yaml", "--checkpoint_every", "2", "--trainer.callbacks", callback)


def test_ctrl_c_exits_with_130_and_says_how_to_resume(cli, folder):
    handler = signal.getsignal(signal.SIGINT)
    result = stop(cli, folder, at=3)
    assert result.code == 130
    assert len(result.err.splitlines()) == 1
    assert "interrupted at step 3" in result.err
    assert signal.getsignal(signal.SIGINT) is handler
    words = result.err.split("scoredistill fit: ")[1].split("scoredistill ")[1].split()
    assert cli(*words, "--trainer.callbacks", "null", "--trainer.max_steps", "4").code == 0
    assert torch.load(folder / "runs/points/0/checkpoints/last.ckpt")["global_step"] == 4


def test_ctrl_c_before_the_first_checkpoint_says_so(cli, folder):
    result = stop(cli, folder, at=1)
    assert result.code == 130
    assert "before the first checkpoint" in result.err


def differing(a: Any, b: Any, where: str = "") -> list[str]:
    """The keys at which two checkpoints differ in any bit."""
    if isinstance(a, Mapping):
        keys = [f"{where}.{key}" for key in a.keys() ^ b.keys()]
        return keys + [place for key in a.keys() & b.keys() for place in differing(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, Sequence) and not isinstance(a, str):
        return [place for i, (x, y) in enumerate(zip(a, b, strict=True)) for place in differing(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(
    ("recipe", "average"),
    [
        (LEARNED, "averages.ema.module.values"),
        (STUDENT, "averages.ema.module.denoiser.network.out.weight"),
        (MESHES, "averages.ema.module.geometry.grid.distance"),
    ],
    ids=["particles", "student", "meshes"],
)
def test_a_killed_run_resumes_bit_for_bit(recipe, average, tmp_path, monkeypatch):
    (tmp_path / "learned.yaml").write_text(recipe)
    (tmp_path / "slowly.py").write_text(SLOWLY)
    monkeypatch.chdir(tmp_path)

    def started(output: str, *words: str) -> Forked:
        line = ["fit", "--config", "learned.yaml", "--output", output, "--trainer.callbacks", "slowly.Slowly", *words]
        return Forked(lambda: main(line), tmp_path / "log.txt", dtype=torch.float32)

    whole = started("whole")
    assert whole.wait() == 0, whole.said
    process, last = started("cut"), tmp_path / "cut/0/checkpoints/last.ckpt"
    while not last.exists():
        assert process.poll() is None, process.said
        time.sleep(0.01)
    time.sleep(random.uniform(0, 1.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert torch.load(last)["global_step"] < 60
    resumed = started("cut", "--ckpt_path", "last")
    assert resumed.wait() == 0, resumed.said
    whole, cut = (torch.load(tmp_path / name / "0/checkpoints/last.ckpt") for name in ("whole", "cut"))
    assert whole["global_step"] == cut["global_step"] == 60
    assert average in whole["state_dict"]
    assert not differing(whole["state_dict"], cut["state_dict"])
    assert not differing(whole["optimizer_states"], cut["optimizer_states"])
    assert not list(tmp_path.glob("cut/0/checkpoints/.*"))
