"""The user's own Lightning modules and data modules in a recipe."""

import pytest
import torch
import yaml

import scoredistill

TASK = '''\
"""Moves particles to what the data says."""

import torch

from scoredistill.generators import Generator
from scoredistill.training import ConditionDataModule, NetworkOptimizer, TrainingModule
from scoredistill.types import Batch


class Pull(TrainingModule):
    """Moves particles to the batch's mean.

    Args:
        generator: the particles.
        share: of the way in each step.
        seed: of all randomness in training, in [0, 2^32).
    """

    def __init__(self, generator: Generator, share: float = 0.5, seed: int = 0) -> None:
        super().__init__(seed)
        self.generator, self.share, self.optimizer = generator, share, NetworkOptimizer(torch.optim.SGD)

    @property
    def eval_generator(self) -> Generator:
        return self.generator

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer.build(self.generator)]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x = self.generator(batch, self.rng_of_tick()).x
        error = (x - batch.data.to(x).mean(0)).square().mean()
        self.log("loss", error.detach())
        self.backward_and_step(self.optimizer, self.share * error, "generator")
        self.ticks += 1


class Points(ConditionDataModule):
    """A batch of equal points.

    Args:
        value: of every coordinate.
    """

    def __init__(self, value: float = 1.0, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.value = value

    def batch_at(self, tick: int) -> Batch:
        return Batch(data=torch.full((3, 2), self.value))


class NoTask(torch.nn.Module):
    pass
'''
RECIPE = """\
task: my_pull_task.Pull
model:
  generator: {class_path: ImageParticles, init_args: {init: [[0.0, 0.25], [0.5, 0.0]]}}
data: {class_path: my_pull_task.Points, init_args: {value: 3.0}}
trainer: {max_steps: 4, accelerator: cpu}
"""


@pytest.fixture
def _files(folder, monkeypatch):
    (folder / "my_pull_task.py").write_text(TASK)
    (folder / "pull.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("_files")
def test_a_task_and_its_data_run_resume_and_predict(cli, folder):
    result = cli("fit", "--config", "pull.yaml", "--output", "out", "--model.share", "0.25")
    assert result.code == 0, result.err
    resolved = yaml.safe_load((folder / "out/0/config.yaml").read_text())
    assert resolved["task"] == "my_pull_task.Pull"
    assert resolved["data"] == {"class_path": "my_pull_task.Points", "init_args": {"value": 3.0}}
    assert (folder / "out/0/metrics.json").is_file()
    assert cli("fit", "--ckpt_path", "out/0", "--trainer.max_steps", "6").code == 0
    assert torch.load(folder / "out/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert cli("predict", "--ckpt_path", "out/0").code == 0
    loaded = scoredistill.load("out/0")
    assert (loaded.distiller, loaded.teacher) == (None, None)
    start = torch.tensor([[0.0, 0.25], [0.5, 0.0]])
    assert bool((loaded.generator.values > start).all())
    assert loaded.recipe["model"]["share"] == 0.25


@pytest.mark.usefixtures("_files")
def test_help_and_studies_support_user_tasks(cli, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = cli("fit", "--task", "my_pull_task.Pull", "--help").out
    assert "--model.share SHARE" in text
    assert "of the way in each step." in text
    assert "--model.loss" not in text.partition("Every option")[0]
    (folder / "study.yaml").write_text("recipe: pull.yaml\naxes: {model.share: [0.1, 0.2]}\nseeds: [0]\n")
    assert cli("ablate", "study.yaml", "--dry_run").code == 0


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            "dance",
            "task: there is no 'dance'. Choose from distillation, teacher, autoencoder, pipeline, or give",
        ),
        ("my_pull_task.Pul", "task: my_pull_task has no class 'Pul'. Did you mean 'Pull'?"),
        ("my_pull_task.NoTask", "task: my_pull_task.NoTask is not a TrainingModule"),
        ("os.system", "task: os.system is a function and not a class"),
        ("scoredistill.training.TrainingModule", "task: scoredistill.training.TrainingModule is an abstract class"),
    ],
)
def test_invalid_tasks_are_refused(cli, folder, task, said):
    result = cli("fit", "--config", "pull.yaml", "--task", task)
    assert result.code == 2
    assert said in result.err
    assert not (folder / "runs").exists()
