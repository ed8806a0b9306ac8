"""The recipes from text to 3D, full and small, on a tiny Stable Diffusion."""

import json
from pathlib import Path

import pytest
from teachers.tiny_pipelines import saved

from scoredistill.evaluation import PromptClassifier

# A tiny text encoder truncates texts to 14 letters, with a warning; diffusers may warn about the hub.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the prompt .* is too long"),
    pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`"),
]

NAMES = ["dreamfusion", "sjc", "prolificdreamer/nerf", "prolificdreamer/scene"]
LATENT = "sjc"

SHORT = """\
data: {init_args: {prompt: a red mug, evaluation_views: 2}}
trainer:
  max_steps: 2
  accelerator: cpu
  enable_progress_bar: false
  callbacks:
  - {class_path: ParticleGrid, init_args: {every: 0, resolution: 16, views: 2}}
"""
TINY = """\
model:
  generator:
    init_args:
      particles: 2
      encoding: {encoding}
      occupancy: {{class_path: Occupancy, init_args: {{resolution: 8}}}}
      resolution: {resolution}
      samples: 8
  teacher: {{init_args: {{model: {model}, dtype: float32, prompts: {{cache: null}}}}}}
"""
FIDELITY = "  - {class_path: PromptFidelity, init_args: {candidates: [a red mug, a mushroom], resolution: 16}}\n"


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An epsilon and a v model over the same latents."""
    return {family: saved(family, tmp_path_factory.mktemp(family)) for family in ("sd", "sd-v")}


def tiny(name: str, model: str) -> str:
    """Options that make a recipe tiny: sizes, and the model."""
    latent = name.endswith(LATENT)
    grid = f"{{class_path: DenseGrid, init_args: {{resolution: 8, channels: {5 if latent else 4}}}}}"
    hashed = "{class_path: HashGrid, init_args: {levels: 2, log2_size: 6, base: 4, finest: 8}}"
    encoding = grid if latent or name.startswith("small/") else hashed
    return TINY.format(encoding=encoding, resolution=8 if latent else 16, model=model) + SHORT


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_published_recipe_runs(cli, folder, pipelines, name) -> None:
    (folder / "tiny.yaml").write_text(tiny(name, pipelines["sd"]))
    base = ["--model.loss.init_args.critic.init_args.base.init_args.model", pipelines["sd-v"]]
    base += ["--model.loss.init_args.critic.init_args.base.init_args.dtype", "float32"]
    words = base if name.startswith("prolificdreamer") else []
    result = cli("fit", "--config", name, "--config", "tiny.yaml", *words, "--output", "out")
    assert result.code == 0, result.err
    assert metrics(folder / "out" / "0")["seconds"] > 0
    assert (folder / "out" / "0" / "grid.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
@pytest.mark.parametrize("name", ["sjc", "prolificdreamer/nerf"])
def test_a_recipe_from_text_runs_in_a_true_precision(cli, folder, pipelines, name, precision) -> None:
    (folder / "tiny.yaml").write_text(tiny(name, pipelines["sd"]))
    base = ["--model.loss.init_args.critic.init_args.base.init_args.model", pipelines["sd-v"]]
    words = base if name.startswith("prolificdreamer") else []
    overlay = ["--config", name, "--config", "tiny.yaml", *words, "--output", "out"]
    result = cli("fit", *overlay, "--trainer.precision", precision)
    assert result.code == 0, result.err
    assert (folder / "out" / "0" / "grid.png").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_small_recipe_runs(cli, folder, pipelines, name, monkeypatch) -> None:
    monkeypatch.setattr(PromptClassifier.__init__, "__defaults__", (16, 8, 2, 0))
    text = tiny(f"small/{name}", pipelines["sd"])
    (folder / "tiny.yaml").write_text(text + (FIDELITY if name != "prolificdreamer/scene" else ""))
    words = ["--config", name, "--config", f"small/{name}", "--config", "tiny.yaml", "--output", "out"]
    result = cli("fit", *words, "--model.teacher.init_args.trained_by", "null")
    assert result.code == 0, result.err
    if name != "prolificdreamer/scene":
        assert {"recognized", "chroma_gallery", "diversity"} <= metrics(folder / "out" / "0").keys()
    assert (folder / "out" / "0" / "grid.png").is_file()


MESHES = """\
model:
  generator:
    init_args:
      particles: 2
      grid: 8
      resolution: 16
      encoding: {{class_path: DenseGrid, init_args: {{resolution: 8, channels: 4}}}}
      head: DirectHead
{teacher}
"""
TEACHER = "  teacher: {{init_args: {{model: {model}, trained_by: null, dtype: float32, prompts: {{cache: null}}}}}}"


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True], ids=["published", "small"])
def test_the_stages_of_meshes_run(cli, folder, pipelines, small) -> None:
    teacher = TEACHER.format(model=pipelines["sd"])
    (folder / "nerf.yaml").write_text(
        tiny("small/prolificdreamer/nerf" if small else "prolificdreamer/nerf", pipelines["sd"])
    )
    (folder / "geometry.yaml").write_text(MESHES.format(teacher="" if small else teacher) + SHORT)
    (folder / "texture.yaml").write_text(MESHES.format(teacher=teacher) + SHORT)
    for former, stage in ((None, "nerf"), ("nerf", "geometry"), ("geometry", "texture")):
        name = f"prolificdreamer/{stage}"
        words = ["--config", name, *(["--config", f"small/{name}"] if small else []), "--config", f"{stage}.yaml"]
        words += [] if former is None else ["--start_from", former]
        if not small and stage != "geometry":
            base = "--model.loss.init_args.critic.init_args.base.init_args"
            words += [f"{base}.model", pipelines["sd-v"], f"{base}.dtype", "float32"]
        elif small and stage == "nerf":
            words += ["--model.teacher.init_args.trained_by", "null"]
        result = cli("fit", *words, "--output", stage)
        assert result.code == 0, result.err
        assert (folder / stage / "0" / "grid.png").is_file()
    result = cli("export", "texture/0", "--texture", "16")
    assert result.code == 0, result.err
    assert "watertight, a texture of 16 x 16" in result.out


def test_the_objective_is_switched_by_one_override(cli, folder, pipelines) -> None:
    (folder / "tiny.yaml").write_text(tiny("small/prolificdreamer/nerf", pipelines["sd"]))
    words = ["--config", "prolificdreamer/nerf", "--config", "small/prolificdreamer/nerf", "--config", "tiny.yaml"]
    words += ["--model.teacher.init_args.trained_by", "null", "--output", "out"]
    result = cli("fit", *words, "--model.loss", "SDS")
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_model_is_one_clear_error(cli, folder, name, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = cli("fit", "--config", name, "--trainer.accelerator", "cpu")
    assert result.code != 0
    assert "model: 'models/stable-diffusion" in result.err
    assert "set the folder of a downloaded or trained pipeline" in result.err
