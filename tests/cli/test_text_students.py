"""A one-step student of Stable Diffusion by the shipped recipe, on a tiny pipeline and a few captioned pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli.conftest import Cli
from data.pictures_on_disk import picture
from teachers.tiny_pipelines import saved

from scoredistill.data import PictureEncoder
from scoredistill.teachers import DiffusersTeacher, PromptSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`"),
]

CAPTIONS = ["a red mug", "a tree", "a lamp", "a car"]

TINY = """\
model:
  generator: {{init_args: {{shape: [4, 8, 8]}}}}
  teacher: {{init_args: {{model: {model}, resolution: 16, prompts: {{cache: null}}}}}}
data:
  init_args:
    source:
      init_args:
        source: {{init_args: {{folder: {pictures}, resolution: 16}}}}
        encode: {{init_args: {{model: {model}}}}}
        folder: latents
    batch_size: 4
    evaluation_size: 4
trainer: {{max_steps: 2, accelerator: cpu, enable_progress_bar: false}}
"""


@pytest.fixture(autouse=True)
def _float32() -> None:
    torch.set_default_dtype(torch.float32)  # what pipelines run in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved("sd", tmp_path_factory.mktemp("sd"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, text in enumerate(CAPTIONS):
        picture(60 * i, (16, 16)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    return folder


def stock(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
def test_the_recipe_runs_predicts_and_exports(cli: Cli, folder: Path, model: str, pictures: Path) -> None:
    (folder / "tiny.yaml").write_text(TINY.format(model=model, pictures=pictures))
    result = cli("fit", "--config", "f_distill/sd15", "--config", "tiny.yaml", "--output", "out")
    assert result.code == 0, result.err
    assert len(list((folder / "latents").iterdir())) == 1
    stored = torch.load(folder / "out/0/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == 2
    assert stored["counters"]["critic_steps"] == 20
    resolved = yaml.safe_load((folder / "out/0/config.yaml").read_text())
    assert resolved["model"]["guidance"]["init_args"]["scale"] == 1.75
    assert cli("predict", "--ckpt_path", "out/0").code == 0
    assert (folder / "out/0/predictions/0/samples.png").is_file()
    result = cli("export", "out/0")
    assert result.code == 0, result.err
    assert "call it as pipeline(prompt, guidance_scale=1.0, num_inference_steps=1)" in result.out
    pipeline = stock(folder / "out/0/export/0/pipeline")
    made = pipeline("a red mug", guidance_scale=1.0, num_inference_steps=1, height=16, width=16, output_type="np")
    assert made.images.shape == (1, 16, 16, 3)
    trained, started = pipeline.unet, stock(Path(model)).unet
    pairs = zip(trained.parameters(), started.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_prompts_of_a_file_train_a_student_of_several_steps_without_data(cli: Cli, folder: Path, model: str) -> None:
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS))
    made = {
        "generator": {"class_path": "OneStepUNet", "init_args": {"shape": [4, 8, 8], "times": [1.0, 0.5]}},
        "teacher": {
            "class_path": "DiffusersTeacher",
            "init_args": {"model": model, "resolution": 16, "prompts": {"cache": None}},
        },
        "loss": {"class_path": "VSD", "init_args": {"critic": "NetworkCritic"}},
    }
    data = {"class_path": "PromptFile", "init_args": {"file": "prompts.txt", "batch_size": 2, "evaluation_size": 3}}
    trainer = {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False}
    (folder / "student.yaml").write_text(json.dumps({"model": made, "data": data, "trainer": trainer}))
    result = cli("fit", "--config", "student.yaml", "--output", "out")
    assert result.code == 0, result.err
    result = cli("export", "out/0", "--output", "given", "--base", model)
    assert result.code == 0, result.err
    assert "timesteps=[999, 499]" in result.out
    pipeline = stock(folder / "given/pipeline")
    made = pipeline("a tree", guidance_scale=1.0, timesteps=[999, 499], height=16, width=16, output_type="np")
    assert made.images.shape == (1, 16, 16, 3)


@pytest.mark.slow
def test_latents_are_the_teachers_own(model: str) -> None:
    x = 2 * torch.rand(2, 3, 16, 16) - 1
    teacher = DiffusersTeacher(model, resolution=16, prompts=PromptSettings(cache=None))
    assert torch.equal(PictureEncoder(model)(x), teacher.encode(x))
    with pytest.raises(ValueError, match="is not a local folder, and could not be loaded from the hub"):
        PictureEncoder("models/nowhere")
