"""A teacher and its student from the command line."""

import json

import pytest
import torch
from jsonargparse import Namespace

from scoredistill.cli.prerequisites import train_what_is_missing

TEACHER = """\
task: teacher
output: teachers
model:
  network: {class_path: MLPBackbone, init_args: {shape: [1, 8, 8], hidden: 16, layers: 1, classes: 10}}
  shape: [1, 8, 8]
data: {class_path: Images, init_args: {source: DigitImages, batch_size: 8, condition_on: data}}
trainer: {max_steps: 3, accelerator: cpu, callbacks: [{class_path: ParticleGrid, init_args: {every: 0, samples: 20}}]}
"""
STUDENT = """\
output: students
model:
  generator: {class_path: OneStepUNet, init_args: {shape: [1, 8, 8], times: [0.5]}}
  teacher: {class_path: NetworkTeacher, init_args: {folder: teachers, trained_by: teacher.yaml}}
  loss:
    class_path: WithGAN
    init_args:
      loss:
        class_path: FDistill
        init_args: {divergence: JensenShannon, critic: NetworkCritic, ratio: DiscriminatorRatio}
  ema: 0.5
data: {class_path: Images, init_args: {source: DigitImages, batch_size: 8, condition_on: data, evaluation_size: 20}}
trainer:
  max_steps: 2
  accelerator: cpu
  callbacks:
  - {class_path: SampleQuality, init_args: {samples: 100, resamples: 0, reference_teacher: 2, extractor: PCAFeatures}}
  - {class_path: ParticleGrid, init_args: {every: 1, samples: 20}}
"""


@pytest.fixture
def _recipes(folder):
    (folder / "teacher.yaml").write_text(TEACHER)
    (folder / "student.yaml").write_text(STUDENT)


@pytest.mark.usefixtures("_recipes")
def test_a_student_trains_a_missing_teacher_once(cli, folder, monkeypatch):
    asked = []
    assert cli("fit", "--config", "teacher.yaml", "--output", "ready").code == 0

    def run(words, environment):
        asked.append(words[words.index("fit") :])
        (folder / "ready/0").rename(folder / "teachers/0")
        return 0

    monkeypatch.setattr("scoredistill.cli.prerequisites.run_bound", run)
    result = cli("fit", "--config", "student.yaml")
    assert result.code == 0, result.err
    assert asked == [["fit", "--config", "teacher.yaml", "--output", "teachers"]]
    assert (folder / "teachers/0/teacher/network.safetensors").is_file()
    assert (folder / "teachers/0/grid.png").is_file()
    metrics = json.loads((folder / "students/0/metrics.json").read_text())
    assert {"frechet", "teacher/frechet", "precision"} <= metrics.keys()
    assert (folder / "students/0/pictures/step_000001.png").is_file()
    assert cli("fit", "--config", "student.yaml").code == 0
    assert len(asked) == 1
    stored = torch.load(folder / "students/1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not any("teacher" in key for key in stored)
    assert cli("predict", "--ckpt_path", "students/0").code == 0
    assert (folder / "students/0/predictions/0/samples.png").is_file()
    assert cli("predict", "--ckpt_path", "students/0", "--separate", "--data.batch_size", "7").code == 0
    assert len(list((folder / "students/0/predictions/1/pictures").glob("*.png"))) == 20
    assert cli("validate", "--ckpt_path", "students/0").code == 0
    assert "no pipeline in diffusers" in cli("export", "students/0").err


@pytest.mark.usefixtures("_recipes")
def test_an_interrupted_teacher_is_resumed_and_a_failed_one_stops_the_student(cli, folder, monkeypatch):
    (folder / "teachers/0/checkpoints").mkdir(parents=True)
    (folder / "teachers/0/checkpoints/last.ckpt").touch()
    asked = []
    monkeypatch.setattr("scoredistill.cli.prerequisites.run_bound", lambda words, environment: asked.append(words) or 1)
    result = cli("fit", "--config", "student.yaml")
    assert result.code == 2
    assert "the teacher could not be trained with teacher.yaml" in result.err
    assert asked[0][-2:] == ["--ckpt_path", "last"]
    assert not (folder / "students").exists()


@pytest.mark.parametrize(
    ("key", "part", "marker"),
    [
        ("folder", "teacher", "denoiser.json"),
        ("model", "pipeline", "model_index.json"),
        ("autoencoder", "autoencoder", "config.json"),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_missing_networks_with_a_recipe_are_trained(folder, monkeypatch, key, part, marker, nested):
    asked = []
    ends_well = lambda words, environment: asked.append(words[3:]) or 0  # noqa: E731
    monkeypatch.setattr("scoredistill.cli.prerequisites.run_bound", ends_well)
    settings = Namespace({key: "runs/it", "trained_by": "it.yaml"})
    model = Namespace(teacher=Namespace(init_args=settings)) if nested else settings
    train_what_is_missing(model)
    train_what_is_missing(Namespace(teacher=None))
    assert asked == [["scoredistill", "fit", "--config", "it.yaml", "--output", "runs/it"]]
    (folder / "runs/it/3" / part).mkdir(parents=True)
    (folder / "runs/it/3" / part / marker).touch()
    train_what_is_missing(model)
    assert len(asked) == 1


def test_an_unknown_task_is_one_line(cli, folder):
    result = cli("fit", "--config", "points.yaml", "--task", "dance")
    assert result.code == 2
    assert "task: there is no 'dance'. Choose from distillation, teacher" in result.err
