"""Every mistake gives one message with the cause and the remedy, and leaves no files behind."""

import os
import shutil
import sys

import pytest
import torch

RECIPES = {
    "misspelt_key.yaml": "model: {losss: SDS}\n",
    "misspelt_top.yaml": "modle: {loss: SDS}\n",
    "misspelt_option.yaml": "model: {timesteps: {class_path: NoiseLevelTimesteps, init_args: {noise_to_signall: 2}}}\n",
    "misspelt_plan.yaml": "model: {plan: {critic_step: 2}}\n",
    "misspelt_deep.yaml": (
        "model: {generator: {class_path: ImageParticles, init_args: {init: {class_path: GaussianInit, "
        "init_args: {particlez: 2}}}}}\n"
    ),
    "misspelt_rate.yaml": "model: {generator_optimizer: {optimizer: {class_path: Adam, init_args: {lrr: 2}}}}\n",
    "bad_optimizer.yaml": "model: {generator_optimizer: {optimizer: Adan}}\n",
    "bad_include.yaml": "model: {loss: nowhere.yaml}\n",
    "contradiction.yaml": (
        "model: {loss: {class_path: FDistill, init_args: {divergence: JensenShannon, critic: ParticleCritic}}}\n"
    ),
    "fragment.yaml": "class_path: SDS\n",
    "no_yaml.yaml": "model: [\n",
    "no_recipe.yaml": "just text\n",
}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--config misspelt_key.yaml", ["model.losss", "Did you mean 'loss'?"]),
        ("--config misspelt_top.yaml", ["modle", "Did you mean 'model'?"]),
        (
            "--config misspelt_option.yaml",
            ["model.timesteps: NoiseLevelTimesteps", "'noise_to_signall'", "Did you mean"],
        ),
        ("--config misspelt_plan.yaml", ["model.plan: UpdatePlan", "Did you mean 'critic_steps'?"]),
        ("--config misspelt_deep.yaml", ["model.generator.init: GaussianInit", "Did you mean 'particles'?"]),
        ("--config misspelt_rate.yaml", ["model.generator_optimizer.optimizer: Adam", "Did you mean 'lr'?"]),
        ("--config bad_optimizer.yaml", ["model.generator_optimizer.optimizer", "'Adan'", "'Adam'"]),
        ("--config bad_include.yaml", ["model.loss", "there is no file nowhere.yaml"]),
        ("--config contradiction.yaml", ["JensenShannon needs a density ratio"]),
        ("--config fragment.yaml", ["fragment.yaml is the value of one field", "--model.loss fragment.yaml"]),
        ("--config no_yaml.yaml", ["no_yaml.yaml, line 2"]),
        ("--config no_recipe.yaml", ["no_recipe.yaml is not a recipe"]),
        ("--config nowhere.yaml", ["'nowhere.yaml' is neither a file nor a shipped recipe"]),
        ("--config", ["--config needs a value"]),
        ("--model.losss SDS", ["model.losss", "Did you mean 'loss'?"]),
        ("--trainer.max_stepz=3", ["trainer.max_stepz", "'max_steps'"]),
        ("--model.loss VSDD", ["model.loss: there is no Objective called 'VSDD'", "'VSD'"]),
        ("--model.loss my_losses.Mine", ["model.loss: there is no module 'my_losses'"]),
        ("--model.loss torch.nn.Linear", ["model.loss: torch.nn.Linear is not an Objective"]),
        ("--model.loss.critic ParticleCritic", ["model.loss: SDS has no option 'critic'"]),
        ("--model.generator.init [[0,1],[1]]", ["model.generator.init: expected a list of numbers", "equal length"]),
        ("--model.generator.per_step 9", ["per_step must be between 1 and the 2 particles, got 9"]),
        ("--model.plan.critic_steps 0", ["plan.critic_steps", "at least 1"]),
        ("--model.ema x", ["model.ema: expected float or names with values or null, got x"]),
        ("--model.seed 3", ["model.seed: follows seed_everything"]),
        ("--seed_everything -1", ["seed_everything"]),
        ("--checkpoint_every 0", ["checkpoint_every"]),
        ("--data PromptAndCameras", ["data: PromptAndCameras needs prompt"]),
        ("--data.elevation [0,1]", ["data: ConditionDataModule has no option 'elevation'"]),
        ("--trainer.default_root_dir x", ["set output instead"]),
        ("word", ["'word' is not expected there"]),
        ("--ckpt_path last", ["no run under runs/points has a checkpoint"]),
        ("--ckpt_path nowhere.ckpt", ["there is no checkpoint and no run folder nowhere.ckpt"]),
        ("--ckpt_path fragment.yaml", ["fragment.yaml is not a checkpoint"]),
        ("--ckpt_path other.ckpt", ["other.ckpt is not a checkpoint of a run"]),
        ("--model.guidance.scale abc", ["model.guidance: it has no class yet", "--model.guidance CFG"]),
        ("--ckpt_path .", ["not a run folder with a checkpoint in it"]),
    ],
)
def test_a_mistake_ends_in_one_message(cli, folder, words, said):
    for name, text in RECIPES.items():
        (folder / name).write_text(text)
    torch.save({"epoch": 3}, folder / "other.ckpt")
    before = set(folder.rglob("*"))
    result = cli("fit", "--config", "points.yaml", *words.split())
    assert result.code == 2
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("scoredistill fit: ")
    assert all(text in lines[0] for text in said), result.err
    assert "<class" not in lines[0]
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "there is no checkpoint and no run folder nowhere"),
        ("runs/points/7", "there is no checkpoint and no run folder runs/points/7"),
        (
            "runs/points/0/checkpoints/none.ckpt",
            "no run folder runs/points/0/checkpoints/none.ckpt",
        ),
        ("nowhere --model.loss VSD", "there is no checkpoint and no run folder nowhere"),
        (
            "runs/points",
            "runs/points is not a run folder: config.yaml is missing; the newest run in it is runs/points/0",
        ),
        ("empty", "empty is not a run folder: config.yaml is missing; name its recipe with --config"),
        ("other.ckpt", "other.ckpt is not in a run folder: name its recipe with --config"),
        ("last", "the newest run of which recipe? name its recipe with --config, or name the run"),
        ("last --output nowhere", "no run under nowhere has a checkpoint"),
    ],
)
@pytest.mark.parametrize(
    "command", ["fit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("predict", "test", "validate"))]
)
def test_a_missing_run_is_reported(cli, folder, command, words, said):
    assert cli("fit", "--config", "points.yaml").code == 0
    shutil.copy(folder / "runs/points/0/checkpoints/last.ckpt", folder / "other.ckpt")
    (folder / "empty").mkdir()
    before = set(folder.rglob("*"))
    result = cli(command, "--ckpt_path", *words.split())
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert said in result.err
    assert set(folder.rglob("*")) == before


def test_the_newest_run_of_a_folder_needs_no_recipe(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    assert cli("fit", "--ckpt_path", "last", "--output", "runs/points", "--trainer.max_steps", "4").code == 0
    assert torch.load(folder / "runs/points/0/checkpoints/last.ckpt")["global_step"] == 4


def test_missing_settings_are_named(cli, folder):
    result = cli("fit", "--model.loss", "SDS")
    assert result.code == 2
    assert "model.generator, model.teacher missing" in result.err


def test_an_unknown_prompt_word_leaves_no_folder(cli, folder):
    words = ["--model.teacher", "Gallery", "--data.prompt", "a red mgu", "--model.generator.init", "[[[[0.0]]]]"]
    generator = ["--model.generator", "ImageParticles", "--model.generator.init", "pictures.yaml"]
    (folder / "pictures.yaml").write_text("class_path: GaussianInit\ninit_args: {particles: 1, shape: [3, 8, 8]}\n")
    result = cli("fit", "--config", "points.yaml", *words[:4], *generator)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "unknown word 'mgu'" in result.err
    assert not (folder / "runs").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_named(cli, folder):
    (folder / "closed").mkdir(mode=0o500)
    result = cli("fit", "--config", "points.yaml", "--output", "closed/runs")
    assert result.code == 2
    assert "cannot write into closed" in result.err


def test_a_file_in_place_of_the_folder_is_named(cli, folder):
    result = cli("fit", "--config", "points.yaml", "--output", "points.yaml")
    assert result.code == 2
    assert "cannot write into points.yaml" in result.err


def test_debug_shows_the_stack_trace(cli, folder):
    result = cli("fit", "--config", "points.yaml", "--model.generator.per_step", "9", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert "per_step must be" in result.err.splitlines()[-1]


def test_a_checkpoint_of_another_recipe_is_refused(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    words = ["--model.loss", "VSD", "--model.loss.critic", "NetworkCritic", "--model.loss.critic.network", "mlp.yaml"]
    (folder / "mlp.yaml").write_text("class_path: MLPBackbone\ninit_args: {shape: [2], hidden: 4, layers: 1}\n")
    result = cli("fit", "--config", "points.yaml", "--ckpt_path", "last", *words)
    assert result.code == 1
    assert "does not fit the recipe" in result.err


def test_a_failed_command_keeps_existing_folders(cli, folder):
    (folder / "mine" / "empty").mkdir(parents=True)
    wrong = ["--config", "points.yaml", "--model.generator.per_step", "9"]
    for output in ("mine/empty", "mine/empty/new/runs"):
        assert cli("fit", *wrong, "--output", output).code == 2
        assert [path.name for path in (folder / "mine").rglob("*")] == ["empty"]


LONG = 100_000


@pytest.mark.parametrize(
    "words",
    [
        ["--model.loss", "x" * LONG],
        ["--model.loss", "x." * (LONG // 2) + "y"],
        ["--model.loss", "(" * LONG],
        ["--model.loss", "[" * LONG],
        ["--model.loss", "a/" * (LONG // 2)],
        ["--model.loss." + "x" * LONG, "1"],
        ["--model.loss" + ".x" * 500, "1"],
        ["--" + "x" * LONG, "1"],
        ["--model.ema", "1" * LONG],
        ["--model.ema", "1e" + "9" * LONG],
        ["--ckpt_path", "x" * LONG],
        ["--config", "x" * LONG],
        ["--task", "x" * LONG],
        ["x" * LONG],
    ],
    ids=lambda words: words[0][:30] + "=" + words[-1][:8],
)
def test_endless_content_is_refused_with_a_short_message(cli, folder, words):
    result = cli("fit", "--config", "points.yaml", *words)
    assert result.code in (1, 2)
    assert len(result.err.splitlines()) == 1
    assert len(result.err) < 1000


def test_a_recipe_that_includes_itself_is_refused(cli, folder):
    (folder / "own.yaml").write_text("class_path: WithGAN\ninit_args: {loss: own.yaml}\n")
    result = cli("fit", "--config", "points.yaml", "--model.loss", "own.yaml")
    assert result.code == 2
    assert "model.loss.loss: own.yaml includes itself" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {loss: SDS, loss: CSD}\n", "bad.yaml, line 1 is not YAML: the key 'loss' is used twice"),
        ("model: &m {loss: *m}\n", "bad.yaml, line 1 is not YAML: an alias contains itself"),
        ("model: {guidance: {class_path: CFG, init_args: }}\n", "model.guidance.init_args: expected arguments"),
        ("model: {guidance: {class_path: [CFG]}}\n", "model.guidance: expected the name of a class"),
        ("model: {guidance: {clas_path: CFG}}\n", "Did you mean 'class_path'?"),
        ("model: {guidance: {class_path: CFG, init_arg: {scale: 2}}}\n", "Did you mean 'init_args'?"),
        ("model: {guidance: {class_path: CFG, scale: 2}}\n", "Arguments of the class belong under init_args"),
        ("model: {guidance: SDS}\n", "SDS is an Objective and not a Guidance"),
        ("model: {timesteps: [1, 2]}\n", "model.timesteps: expected one of UniformTimesteps,"),
        ("trainer: true\n", "trainer: expected keys with values, got true"),
        ("model: {generator_optimizer: {optimizer: {class_path: Adam, init_args: {lr: fast}}}}\n",
         "model.generator_optimizer.optimizer.lr: expected float or a list of numbers, got fast"),
        ("model: {generator_optimizer: {factor: {knots: [{at: 0, value: 1, then: 0x10}]}}}\n",
         "model.generator_optimizer.factor.knots[0].then: expected hold or linear or geometric, got 16"),
        ("output: 5\n", "output: expected str, got 5: put it in quotes"),
    ],
)  # fmt: skip
def test_recipe_errors_state_key_type_and_value(cli, folder, text, said):
    (folder / "bad.yaml").write_text(text)
    result = cli("fit", "--config", "points.yaml", "--config", "bad.yaml")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "bad.yaml" in result.err
    assert said in result.err
