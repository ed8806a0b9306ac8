"""A recipe is data: a name in it is a class of the right kind or an error, and nothing else is ever called."""

import subprocess
import sys

import pytest
import yaml
from cli.test_export import NERF

from scoredistill.cli.key_types import parameters
from scoredistill.cli.tasks import TASKS

CALLS = [
    {"class_path": "os.system", "init_args": {"command": "touch called"}},
    "os.abort",
]
KEYS = ["model." + name for name in parameters(TASKS["distillation"])]
KEYS += ["data", "output", "task", "trainer.callbacks", "trainer.logger", "trainer.strategy", "trainer.plugins"]
KEYS += ["trainer.profiler", "trainer.accelerator", "trainer.max_steps"]
DEEPER = [
    "model.generator_optimizer.optimizer",
    "model.generator_optimizer.rates",
    "model.generator_optimizer.factor",
    "model.loss.weight",
    "model.loss.normalizer",
    "model.teacher.schedule",
    "model.teacher.stds",
    "model.generator.init",
]


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", KEYS + DEEPER)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call["class_path"] if isinstance(call, dict) else call)
def test_no_key_of_a_recipe_calls_a_function(cli, folder, key, call):
    (folder / "bad.yaml").write_text(yaml.safe_dump(nested(key, call)))
    result = cli("fit", "--config", "points.yaml", "--config", "bad.yaml", "--trainer.max_steps", "1")
    assert result.code in (1, 2) or key == "output"
    assert not (folder / "called").exists()
    assert key == "output" or len(result.err.splitlines()) == 1, result.err


@pytest.mark.parametrize("form", ["--{key}={call}", "--{key}.class_path=os.system", "--{key}+={call}"])
@pytest.mark.parametrize("key", ["model.generator_optimizer.optimizer", "model.loss", "trainer.callbacks"])
def test_no_option_calls_a_function(cli, folder, key, form):
    word = form.format(key=key, call=yaml.safe_dump(CALLS[0], default_flow_style=True).strip())
    result = cli("fit", "--config", "points.yaml", word)
    assert result.code == 2
    assert not (folder / "called").exists()
    assert "os.system is a function and not a class" in result.err or "not a list" in result.err


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "export"])
@pytest.mark.parametrize("key", ["generator_optimizer.init_args.optimizer", "generator", "teacher"])
def test_the_recipe_of_a_run_calls_nothing_either(cli, folder, command, key):
    assert cli("fit", "--config", "points.yaml", "--output", "out").code == 0
    config = folder / "out/0/config.yaml"
    recipe = yaml.safe_load(config.read_text())
    recipe["model"]["generator_optimizer"] = {"class_path": "NetworkOptimizer", "init_args": {}}
    inside = recipe["model"]
    *above, last = key.split(".")
    for name in above:
        inside = inside[name]
    inside[last] = CALLS[0]
    config.write_text(yaml.safe_dump(recipe, explicit_end=True))
    result = cli(command, *(["out/0"] if command == "export" else ["--ckpt_path", "out/0"]))
    assert result.code == 2 or command == "export"
    assert not (folder / "called").exists()


def test_no_class_is_built_where_the_type_is_any(cli, folder):
    text = "task: autoencoder\nmodel: {network: {norm: {class_path: torch.nn.Linear, init_args: {in_features: 1}}}}\n"
    (folder / "bad.yaml").write_text(text)
    result = cli("fit", "--config", "bad.yaml")
    assert result.code == 2
    assert "model.network.norm: takes no class" in result.err


def test_a_study_names_launchers_only(cli, folder):
    call = yaml.safe_dump(CALLS[0], default_flow_style=True).strip()
    (folder / "study.yaml").write_text(f"recipe: points.yaml\naxes: {{model.loss: [SDS, CSD]}}\nlauncher: {call}\n")
    result = cli("ablate", "study.yaml", "--dry_run")
    assert result.code == 2
    assert "study.yaml: launcher: os.system is a function and not a class" in result.err
    assert not (folder / "called").exists()


SPY = "import pathlib\npathlib.Path('imported').touch()\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "export", "view", "report", "recipes"])
@pytest.mark.parametrize("entry", ["module", "script"])
def test_no_file_in_the_working_directory_shadows_a_library(folder, command, entry):
    for name in ("scipy", "yaml", "trimesh", "skimage", "jsonargparse", "torchvision", "numpy", "PIL", "safetensors"):
        (folder / f"{name}.py").write_text(SPY)
    main = "import sys; from scoredistill.__main__ import main; sys.exit(main())"
    start = ["-m", "scoredistill"] if entry == "module" else ["-P", "-c", main]
    words = {"fit": ["--config", "points.yaml"], "recipes": ["list"]}.get(command, ["nowhere"])
    done = subprocess.run([sys.executable, *start, command, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == (0 if command in ("fit", "recipes") else 2), done.stderr
    assert not (folder / "imported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["module", "script"])
def test_a_run_is_exported_without_the_files_beside_it(cli, folder, entry):
    teacher = "  teacher: {class_path: Gallery, init_args: {supersample: 1}}\n"
    lines = NERF.splitlines(keepends=True)
    (folder / "nerf.yaml").write_text("".join(teacher if "GaussianMixture" in line else line for line in lines))
    assert cli("fit", "--config", "nerf.yaml").code == 0
    for place in (folder, folder / "runs/nerf/0"):
        for name in ("scipy", "trimesh", "skimage", "xatlas", "imageio", "PIL"):
            (place / f"{name}.py").write_text(SPY)
    main = "import sys; from scoredistill.__main__ import main; sys.exit(main())"
    start = ["-m", "scoredistill"] if entry == "module" else ["-P", "-c", main]
    words = ["export", "runs/nerf/0", "--format", "glb", "--turntable", "gif", "--resolution", "16", "--frames", "2"]
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert not (folder / "imported").exists()
