"""Training that diverges ends with an error and writes no NaN; files with NaN are refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from scoredistill.cli.viewer.run_page import report
from scoredistill.files import json_text
from scoredistill.networks import MLPBackbone
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.modules import first_not_finite
from scoredistill.networks.storage import load_denoiser, save_denoiser
from scoredistill.training.run_folder import RunFolder

POISON = """\
import sys

import torch
from pytorch_lightning import Callback


class Poison(Callback):
    \"\"\"Puts a value into one tensor of a training after a step.\"\"\"

    def __init__(self, where: str, value: float, step: int) -> None:
        self.where, self.value, self.step = where, value, step

    def on_train_batch_end(self, trainer, module, *rest) -> None:
        if trainer.global_step != self.step:
            return
        if self.where in ("loss", "critic/loss"):
            module.log(self.where, torch.tensor(self.value))
        elif self.where.startswith("optimizer"):
            state = trainer.optimizers[0].state
            next(iter(state.values()))[self.where.partition(".")[2]].view(-1)[0] = self.value
        else:
            module.state_dict()[self.where].view(-1)[0] = self.value
"""

LEARNED = """\
model:
  loss:
    class_path: VSD
    init_args:
      critic:
        class_path: NetworkCritic
        init_args: {network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 4, layers: 1}}}
  ema: 0.5
"""

TEACHER = """\
task: teacher
model: {network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 4, layers: 1}}, shape: [2]}
data:
  class_path: Images
  init_args:
    batch_size: 4
    source: {class_path: TeacherSamples, init_args: {teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}}}
trainer: {max_steps: 3, accelerator: cpu, logger: false}
"""  # noqa: E501

WHERE = [
    "distiller.generator.values",
    "averages.ema.module.values",
    "distiller.loss.critic.denoiser.network.out.weight",
    "optimizer.exp_avg",
    "optimizer.exp_avg_sq",
    "loss",
    "critic/loss",
]


@pytest.fixture
def recipes(folder):
    (folder / "poison.py").write_text(POISON)
    (folder / "learned.yaml").write_text(LEARNED)
    (folder / "teacher.yaml").write_text(TEACHER)
    return folder


def poison(where: str, value: float = float("nan"), step: int = 2) -> list[str]:
    settings = json.dumps({"where": where, "step": step})[:-1] + f', "value": {".nan" if value != value else ".inf"}}}'
    return ["--trainer.callbacks+", f"{{class_path: poison.Poison, init_args: {settings}}}"]


@pytest.mark.parametrize(
    "value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)], ids=["nan", "inf"]
)
@pytest.mark.parametrize("where", WHERE)
def test_divergence_is_reported_and_the_previous_checkpoint_kept(cli, recipes, where, value):
    words = ["--config", "points.yaml", "--config", "learned.yaml", "--checkpoint_every", "1"]
    words += ["--trainer.log_every_n_steps", "1"]
    result = cli("fit", *words, *poison(where, value))
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "is not finite at step 2: training has diverged" in result.err
    assert where.replace("optimizer.", "") in result.err
    run = recipes / "runs/points/0"
    assert torch.load(run / "checkpoints/last.ckpt")["global_step"] == 1
    assert cli("fit", "--ckpt_path", run, "--trainer.callbacks", "null").code == 0
    assert torch.load(run / "checkpoints/last.ckpt")["global_step"] == 3


@pytest.mark.parametrize("checkpoints", ["true", "false"])
def test_divergence_in_the_last_step_is_an_error(cli, recipes, checkpoints):
    words = ["--config", "points.yaml", "--trainer.enable_checkpointing", checkpoints]
    result = cli("fit", *words, *poison("distiller.generator.values", step=3))
    assert result.code == 1
    assert "distiller.generator.values is not finite at step 3" in result.err
    assert not list(recipes.rglob("*.ckpt"))
    assert not list(recipes.rglob("metrics.json"))


def test_a_teacher_that_diverges_is_not_written(cli, recipes):
    result = cli("fit", "--config", "teacher.yaml", *poison("averages.ema.module.network.out.weight", step=3))
    assert result.code == 1
    assert "averages.ema.module.network.out.weight is not finite at step 3" in result.err
    assert [path.name for path in recipes.glob("runs/teacher/0/*") if path.name in ("teacher", "checkpoints")] == []


@pytest.mark.parametrize("key", ["state_dict", pytest.param("optimizer_states", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--ckpt_path", "runs/points/0"],
        ["fit", "--config", "points.yaml", "--start_from", "runs/points/0"],
        ["predict", "--ckpt_path", "runs/points/0"],
        ["test", "--ckpt_path", "runs/points/0"],
        ["validate", "--ckpt_path", "runs/points/0"],
        ["export", "runs/points/0"],
    ],
    ids=" ".join,
)
def test_a_checkpoint_with_nan_is_refused_by_name(cli, recipes, words, key):
    assert cli("fit", "--config", "points.yaml").code == 0
    path = recipes / "runs/points/0/checkpoints/last.ckpt"
    content = torch.load(path)
    tensor = content["state_dict"]["distiller.generator.values"]
    tensor = tensor if key == "state_dict" else content["optimizer_states"][0]["state"][0]["exp_avg"]
    tensor[0, 0] = torch.nan
    torch.save(content, path)
    before = set(recipes.rglob("*"))
    result = cli(*words)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert f"runs/points/0/checkpoints/last.ckpt cannot be used: {key}" in result.err
    assert {path for path in set(recipes.rglob("*")) - before if path.name != ".lock"} == set()


FIGURES = """\
from scoredistill.training.callbacks import Evaluation


class Lost(Evaluation):
    def evaluate(self, module, data, final):
        return {"lost": float("nan"), "found": 1.0, "endless": float("inf")}
"""


def test_nonfinite_metrics_are_null(cli, recipes):
    (recipes / "lost_metrics.py").write_text(FIGURES)
    result = cli("fit", "--config", "points.yaml", "--trainer.callbacks", "lost_metrics.Lost")
    assert result.code == 0
    assert "warning: the metric lost is nan; it is null in runs/points/0/metrics.json" in result.err
    text = (recipes / "runs/points/0/metrics.json").read_text()
    metrics = json.loads(text, parse_constant=pytest.fail)
    assert (metrics["lost"], metrics["found"], metrics["endless"]) == (None, 1.0, None)
    assert "not finite" in result.out
    # Readers treat null as missing.
    result = cli("fit", "--ckpt_path", "runs/points/0", "--trainer.callbacks", "null", "--trainer.max_steps", "4")
    assert result.code == 0, result.err


def test_json_has_no_nan_at_any_depth():
    nested = {"a": [1.5, float("nan"), {"b": float("-inf")}], "c": (float("inf"), "NaN")}
    assert json.loads(json_text(nested)) == {"a": [1.5, None, {"b": None}], "c": [None, "NaN"]}


def test_the_page_of_a_run_names_a_checkpoint_with_nan_and_shows_the_rest(cli, recipes):
    assert cli("fit", "--config", "points.yaml").code == 0
    path = recipes / "runs/points/0/checkpoints/last.ckpt"
    content = torch.load(path)
    content["state_dict"]["distiller.generator.values"][0, 0] = torch.inf
    torch.save(content, path)
    said = report(RunFolder(recipes / "runs/points/0"))
    assert len(said["damaged"]) == 1
    assert f"{path} cannot be used: state_dict.distiller.generator.values is not finite" in said["damaged"][0]
    assert said["settings"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_value_is_checked_and_large_values_are_finite(dtype):
    largest = torch.full((5, 3), torch.finfo(dtype).max, dtype=dtype)
    state = {"a": largest, "b": [{"c": torch.tensor(7), "d": torch.empty(0)}, (largest[0, 0], 1.0, None)]}
    assert first_not_finite(state) is None
    for value in (torch.nan, torch.inf, -torch.inf):
        lost = largest.clone()
        lost[4, 2] = value
        assert first_not_finite({"z": lost}) == "z"
        assert first_not_finite({**state, "b": [state["b"][0], (lost[4, 2],)]}) == "b.1.0"


def test_a_denoiser_with_nan_is_neither_written_nor_read(tmp_path):
    denoiser = Denoiser(MLPBackbone((2,), hidden=4, layers=1), "edm", 0.5)
    save_denoiser(denoiser, tmp_path / "good")
    with torch.no_grad():
        denoiser.network.out.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"new: network\.out\.weight is not finite"):
        save_denoiser(denoiser, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    save_file(denoiser.network.state_dict(), tmp_path / "good/network.safetensors")
    with pytest.raises(ValueError, match=r"good: out\.weight is not finite"):
        load_denoiser(tmp_path / "good")
