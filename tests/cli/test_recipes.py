"""Contents of recipes and of the command line, and how they are resolved."""

import json

import pytest
import yaml

from scoredistill.cli import stages
from scoredistill.recipe_library import recipes

RATIO = "class_path: FDistill\ninit_args: {divergence: JensenShannon, critic: ParticleCritic, ratio: ExactRatio}\n"


@pytest.fixture
def resolved(cli, folder):
    """The resolved recipe of a command line."""

    def resolve(*words):
        result = cli("fit", "--config", "points.yaml", *words, "--print_config")
        assert result.code == 0, result.err
        return yaml.safe_load(result.out)

    return resolve


def test_print_config_gives_an_equivalent_recipe(cli, folder, resolved):
    first = resolved()
    (folder / "again.yaml").write_text(yaml.safe_dump(first))
    assert yaml.safe_load(cli("fit", "--config", "again.yaml", "--print_config").out) == first


def test_tensors_are_nested_lists_and_print_as_they_were_written(resolved):
    model = resolved()["model"]
    assert model["teacher"]["init_args"]["means"] == [[0.0, 1.0], [1.0, 0.0]]
    assert model["teacher"]["init_args"]["stds"] == 0.1
    assert model["generator"]["init_args"]["init"] == [[0.0, 0.25], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("words", "critic", "settings"),
    [
        (["--model.loss.critic", "ParticleCritic"], "ParticleCritic", {"bandwidth": 0.0}),
        (
            ["--model.loss.critic", "ParticleCritic", "--model.loss.critic.bandwidth", ".5"],
            "ParticleCritic",
            {"bandwidth": 0.5},
        ),
        (["--model.loss.critic=scoredistill.critics.DiracCritic"], "DiracCritic", None),
    ],
)
def test_short_names_and_dotted_overrides(resolved, words, critic, settings):
    loss = resolved("--model.loss", "VSD", *words)["model"]["loss"]
    assert loss["class_path"] == "scoredistill.losses.VSD"
    assert loss["init_args"]["critic"].pop("class_path") == f"scoredistill.critics.{critic}"
    assert loss["init_args"]["critic"] == ({} if settings is None else {"init_args": settings})


def test_a_path_is_relative_to_the_including_file_or_the_working_directory(folder, resolved):
    (folder / "losses").mkdir()
    (folder / "losses" / "js.yaml").write_text(RATIO)
    (folder / "recipes").mkdir()
    (folder / "recipes" / "more.yaml").write_text("model: {loss: ../losses/js.yaml}\n")
    included = resolved("--config", "recipes/more.yaml")["model"]["loss"]
    assert included == resolved("--model.loss", "losses/js.yaml")["model"]["loss"]
    assert included["init_args"]["divergence"]["class_path"] == "scoredistill.divergences.JensenShannon"


def test_another_class_drops_the_settings_of_the_first(folder, resolved):
    (folder / "js.yaml").write_text(RATIO)
    loss = resolved("--model.loss", "js.yaml", "--model.loss", "SDS")["model"]["loss"]
    assert loss == {"class_path": "scoredistill.losses.SDS", "init_args": {"weight": None, "normalizer": None}}


def test_dataclasses_schedules_and_optimizers(folder, resolved):
    (folder / "more.yaml").write_text(
        """\
model:
  timesteps:
    class_path: NoiseLevelTimesteps
    init_args: {noise_to_signal: {knots: [{at: 0, value: 60, then: geometric}, {at: 1, value: .1}]}}
  plan: {critic_steps: 2, mode: alternating}
  generator_optimizer:
    optimizer: {class_path: Adam, init_args: {lr: .01}}
    factor: {knots: [{at: 0, value: 1}, {at: 1, value: .1}]}
    rates: {values: .5}
"""
    )
    model = resolved("--config", "more.yaml", "--model.plan.critic_steps", "3")["model"]
    assert model["plan"] == {"critic_steps": 3, "mode": "alternating", "accumulate": 1, "noise": "fresh"}
    assert model["timesteps"]["init_args"]["noise_to_signal"]["knots"][0] == {
        "at": 0.0,
        "value": 60.0,
        "then": "geometric",
    }
    optimizer = model["generator_optimizer"]["init_args"]
    assert optimizer["optimizer"]["class_path"] == "torch.optim.Adam"
    assert optimizer["optimizer"]["init_args"]["lr"] == 0.01
    assert optimizer["factor"]["knots"][1]["value"] == 0.1
    assert optimizer["rates"] == {"values": 0.5}


def test_one_seed_for_everything(cli, folder):
    assert cli("fit", "--config", "points.yaml", "--seed_everything", "7").code == 0
    resolved = yaml.safe_load((folder / "runs/points/0/config.yaml").read_text())
    assert resolved["seed_everything"] == 7
    assert "seed" not in resolved["model"]


def test_a_shipped_recipe_is_found_by_name(cli, folder, monkeypatch):
    from scoredistill import recipe_library

    (folder / "shipped" / "losses").mkdir(parents=True)
    (folder / "shipped" / "pair.yaml").write_text((folder / "points.yaml").read_text())
    (folder / "shipped" / "losses" / "js.yaml").write_text(RATIO)
    monkeypatch.setattr(recipe_library, "root", lambda: folder / "shipped")
    result = cli("fit", "--config", "pair", "--model.loss", "recipes/losses/js.yaml", "--print_config")
    assert result.code == 0, result.err
    resolved = yaml.safe_load(result.out)
    assert resolved["output"] == "runs/pair"
    assert resolved["model"]["loss"]["class_path"] == "scoredistill.losses.FDistill"


STAGES = [recipe.name for recipe in recipes() if recipe.path.stem == "stages"]


STUDIES = [recipe.name for recipe in recipes() if recipe.name.startswith("studies/")]


@pytest.mark.parametrize("name", [recipe.name for recipe in recipes() if recipe.name not in (*STAGES, *STUDIES)])
def test_every_shipped_recipe_resolves(cli, folder, name):
    base = ["points/sds", "--model.loss"] if name.startswith("losses/") else []
    overlaid = [name.removeprefix("small/"), "--config"] if name.startswith("small/") else []
    result = cli("fit", "--config", *base, *overlaid, name, "--print_config")
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", STAGES)
def test_every_shipped_stage_resolves(cli, folder, name, monkeypatch):
    asked = []
    monkeypatch.setattr(stages, "run_bound", lambda words: asked.append(words[4:]) or 1)
    for stage in ("nerf", "geometry", "texture"):
        run = folder / "out" / stage / "0"
        result = cli("stages", name, "--output", "out")
        assert f"stage {stage} failed" in result.err
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints/last.ckpt").touch()
        (run / "config.yaml").touch()
        record = json.loads((folder / "out/stages.json").read_text())
        record[stage]["run"] = "0"
        (folder / "out/stages.json").write_text(json.dumps(record))
        result = cli(*asked[-1], "--print_config")
        assert result.code == 0, result.err
        start = yaml.safe_load(result.out)["start_from"]
        assert start == {"nerf": None, "geometry": "out/nerf/0", "texture": "out/geometry/0"}[stage]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_resolves(cli, folder, name):
    result = cli("ablate", name, "--dry_run")
    assert result.code == 0, result.err
    assert "seed 0: scoredistill fit --config=" in result.out
    assert not (folder / "runs").exists()
    assert "is a study: run it with `scoredistill ablate" in cli("fit", "--config", name).err


def test_stages_are_not_a_recipe(cli, folder):
    result = cli("fit", "--config", "mesh/stages")
    assert result.code == 2
    assert "names several recipes: run them with `scoredistill stages" in result.err


def test_help_explains_every_field(cli, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = cli("fit", "--help").out
    for words in (
        "--model.loss",
        "the frozen diffusion model p",
        "FDistill, VSD, SDS",
        "--output",
        "--trainer.max_steps",
    ):
        assert words in text
    assert "barebones" not in text
    lines = [line for line in text.splitlines() if "--" in line]
    assert len(lines) < 60  # Lightning's own has more than 200
    of_vsd = cli("fit", "--model.loss.help", "VSD").out
    assert "the model of the generator's score" in of_vsd


def test_help_lists_the_options_of_the_classes_that_are_named(cli, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    (folder / "my_help_loss.py").write_text(LOSS)
    words = ["--data", "PromptAndCameras", "--model.loss", "my_help_loss.Pull"]
    text = cli("fit", "--config", "points.yaml", *words, "--help").out
    assert "\n--model.loss Pull:\n  --model.loss.c C  how much of the noise is taken off. (type: float" in text
    assert "\n--data PromptAndCameras:\n  --data.prompt PROMPT  the text. (required, type: str)\n" in text
    assert "--data.seed" not in text.partition("--data PromptAndCameras:")[2]  # it follows seed_everything
    assert "the frozen diffusion model p" in text
    assert "--model.teacher GaussianMixture:" not in text  # the recipe names it, not the command line
    assert not (folder / "runs").exists()


def test_help_lists_the_options_of_classes_in_classes(cli, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["--model.loss", "VSD", "--model.loss.init_args.critic.class_path", "ParticleCritic", "--model.generator"]
    text = cli("fit", *words, "ImageParticles", "--trainer.callbacks+=ParticleGrid", "-h").out
    for line in ("loss.critic.bandwidth BANDWIDTH", "generator.per_step PER_STEP", "loss.normalizer NORMALIZER"):
        assert f"  --model.{line}" in text
    assert "\n--trainer.callbacks ParticleGrid:\n" in text
    result = cli("fit", "--model.loss", "DiracCritic", "--help")
    assert result.code == 2
    assert "model.loss: DiracCritic is a Critic and not an Objective" in result.err
    assert cli("fit", "--model.loss", "SDS", "--model.loss.critc", "x", "--help").code == 2


LOSS = '''\
"""A loss of somebody else's."""

from torch import Tensor

from scoredistill.losses import ScoreDistillation


class Pull(ScoreDistillation):
    """g = w(t) (epsilon_teacher - c epsilon).

    Args:
        c: how much of the noise is taken off.
    """

    def __init__(self, c: float = 1.0) -> None:
        super().__init__()
        self.c = c

    def baseline(self, diffused, teacher, guidance) -> Tensor:
        return self.c * diffused.epsilon
'''


def test_a_users_loss_works_by_its_class_path(cli, folder):
    assert len(LOSS.splitlines()) <= 25
    (folder / "somebodys_loss.py").write_text(LOSS)
    (folder / "mine.yaml").write_text("model: {loss: {class_path: somebodys_loss.Pull, init_args: {c: .5}}}\n")
    result = cli("fit", "--config", "points.yaml", "--config", "mine.yaml", "--output", "out")
    assert result.code == 0, result.err
    resolved = yaml.safe_load((folder / "out/0/config.yaml").read_text())
    assert resolved["model"]["loss"] == {"class_path": "somebodys_loss.Pull", "init_args": {"c": 0.5}}
