"""Finished runs as Python objects."""

import subprocess
import sys

import pytest
import torch
import yaml
from cli.test_students import STUDENT, TEACHER

import scoredistill
from scoredistill import Batch, Condition
from scoredistill.cli.load_run import load_generator
from scoredistill.generators import SampledTeacher
from scoredistill.teachers import GaussianMixture, NetworkTeacher

EMA = ("--model.ema", "0.9")


@pytest.fixture(autouse=True)
def _float32():
    torch.set_default_dtype(torch.float32)


def test_a_run_has_its_distiller_its_averaged_generator_and_its_teacher(cli, folder):
    assert cli("fit", "--config", "points.yaml", "--output", "out", *EMA).code == 0
    state = torch.get_rng_state()
    run = scoredistill.load("out/0")
    assert torch.equal(torch.get_rng_state(), state)
    stored = torch.load("out/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(run.generator.values, stored["averages.ema.module.values"])
    assert torch.equal(run.distiller.generator.values, stored["distiller.generator.values"])
    assert not torch.equal(run.generator.values, run.distiller.generator.values)
    assert isinstance(run.teacher, GaussianMixture)
    assert run.teacher is run.distiller.teacher
    assert not any(module.training for module in run.distiller.modules())
    assert run.generator.progress == pytest.approx(2 / 3)
    assert run.recipe["model"]["ema"] == 0.9
    run.distiller.generator_loss(rng=torch.Generator()).backward()
    assert run.distiller.generator.values.grad is not None


def test_a_checkpoint_and_the_parent_of_runs_are_found_too(cli, folder):
    for seed in "01":
        assert cli("fit", "--config", "points.yaml", "--output", "out", "--seed_everything", seed).code == 0
    values = [scoredistill.load(f"out/{number}").generator.values for number in (0, 1)]
    assert not torch.equal(*values)
    assert torch.equal(scoredistill.load("out").generator.values, values[1])
    found = scoredistill.load(folder / "out/0/checkpoints/last.ckpt").generator
    assert torch.equal(found.values, values[0])


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_weights_keep_their_type_unless_another_is_given(cli, folder, precision):
    assert cli("fit", "--config", "points.yaml", "--output", "out", "--trainer.precision", precision, *EMA).code == 0
    dtype = torch.float64 if precision == "64-true" else torch.float32
    stored = torch.load("out/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    run = scoredistill.load("out/0")
    assert run.generator.values.dtype == run.distiller.teacher.means.dtype == dtype
    assert torch.equal(run.generator.values, stored["averages.ema.module.values"])
    half = scoredistill.load("out/0", dtype=torch.bfloat16)
    assert half.generator.values.dtype == half.teacher.means.dtype == torch.bfloat16


def test_a_teacher_and_its_student(cli, folder):
    (folder / "teacher.yaml").write_text(TEACHER)
    (folder / "student.yaml").write_text(STUDENT)
    assert cli("fit", "--config", "teacher.yaml").code == 0
    run = scoredistill.load("teachers/0")
    assert run.distiller is None
    assert isinstance(run.generator, SampledTeacher)
    assert isinstance(run.teacher, NetworkTeacher)
    x_t, t, label = torch.randn(4, 1, 8, 8), torch.full((4,), 0.5), Condition(label=torch.arange(4))
    written = NetworkTeacher(folder="teachers")
    assert torch.equal(run.teacher(x_t, t, label).epsilon, written(x_t, t, label).epsilon)
    result = cli("fit", "--config", "student.yaml")
    assert result.code == 0, result.err
    run = scoredistill.load("students/0")
    alone = load_generator(folder / "students/0/config.yaml", folder / "students/0/checkpoints/last.ckpt").cpu()
    samples = [each(Batch(label), torch.Generator().manual_seed(0)).x for each in (run.generator, alone)]
    assert torch.equal(*samples)
    stored = torch.load("students/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    loaded = run.distiller.state_dict()
    trained = {key.removeprefix("distiller."): value for key, value in stored.items() if key.startswith("distiller.")}
    assert {key.split(".")[1] for key in trained if key.startswith("loss.")} >= {"loss", "discriminator"}
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
    assert torch.equal(run.teacher(x_t, t, label).epsilon, written(x_t, t, label).epsilon)


def test_a_folder_that_is_not_a_run_is_an_error(cli, folder):
    with pytest.raises(ValueError, match="there is no checkpoint and no run folder nowhere"):
        scoredistill.load("nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty is not a run folder with a checkpoint in it \(checkpoints/last.ckpt\)"
    ):
        scoredistill.load("empty")
    assert cli("fit", "--config", "points.yaml", "--output", "out").code == 0
    assert cli("fit", "--config", "points.yaml", "--output", "other").code == 0
    config, text = folder / "out/0/config.yaml", (folder / "out/0/config.yaml").read_text()
    config.write_text(text.replace("- - 0.0", "- - 1.0\n        - 1.0\n      - - 0.0", 1))
    with pytest.raises(ValueError, match="the checkpoint does not fit the recipe"):
        scoredistill.load("out/0")
    config.write_text(text[: text.rindex("\n", 0, len(text) // 2) + 1])
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        scoredistill.load("out/0")
    config.unlink()
    with pytest.raises(ValueError, match=r"out/0 is neither a run folder nor a checkpoint .*config\.yaml is missing"):
        scoredistill.load("out/0")
    (folder / "other/0/checkpoints/last.ckpt").unlink()
    with pytest.raises(ValueError, match="other/0 is not a run folder with a checkpoint"):
        scoredistill.load("other/0")


@pytest.mark.parametrize("key", ["generator", "teacher", "loss.init_args.weight", "task"])
def test_nothing_that_the_recipe_names_is_called(cli, folder, key):
    assert cli("fit", "--config", "points.yaml", "--output", "out").code == 0
    config = folder / "out/0/config.yaml"
    recipe = yaml.safe_load(config.read_text())
    inside, call = recipe["model"], {"class_path": "os.system", "init_args": {"command": "touch called"}}
    if key == "task":
        inside, key, call = recipe, "task", "os.system"
    *above, last = key.split(".")
    for name in above:
        inside = inside[name]
    inside[last] = call
    config.write_text(yaml.safe_dump(recipe, explicit_end=True))
    with pytest.raises(ValueError, match=f"{last}: os.system is a function and not a class"):
        scoredistill.load("out/0")
    assert not (folder / "called").exists()


@pytest.mark.slow
def test_load_is_imported_on_first_use():
    code = "import scoredistill, sys; assert 'torch' not in sys.modules; scoredistill.load; scoredistill.LoadedRun"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert {"load", "LoadedRun"} <= set(scoredistill.__all__)
