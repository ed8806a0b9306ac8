"""Run folders: what a run writes, and how it is resumed."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from scoredistill.files import write_json_atomically
from scoredistill.training.run_folder import RunFolder, numbered_folder


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fit_writes_a_numbered_folder(cli, folder):
    words = ["--config", "points.yaml", "--trainer.logger", "null", "--trainer.log_every_n_steps", "1"]
    for _ in range(2):
        result = cli("fit", *words)
        assert result.code == 0, result.err
        assert result.err == ""
    for number in "01":
        run = folder / "runs/points" / number
        wanted = {"config.yaml", "versions.json", "checkpoints/last.ckpt", "logs/version_0/metrics.csv"}
        assert wanted <= contents(run)
    started = json.loads((run / "versions.json").read_text())[0]
    assert started["torch"] == torch.__version__.split("+")[0] or started["torch"] == torch.__version__
    assert started["command"] == ["scoredistill", "fit", *words]
    assert {path.name for path in folder.iterdir()} == {"points.yaml", "runs"}


def test_the_stored_recipe_runs_again(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    assert cli("fit", "--config", "runs/points/0/config.yaml").code == 0
    recipes = [(folder / f"runs/points/{i}/config.yaml").read_text() for i in range(2)]
    assert recipes[0] == recipes[1]
    weights = [torch.load(folder / f"runs/points/{i}/checkpoints/last.ckpt")["state_dict"] for i in range(2)]
    assert torch.equal(weights[0]["distiller.generator.values"], weights[1]["distiller.generator.values"])


def test_a_logger_writes_into_the_run_folder(cli, folder):
    logger = "{class_path: CSVLogger, init_args: {save_dir: ., name: metrics}}"
    words = ["--trainer.logger", logger, "--trainer.log_every_n_steps", "1"]
    assert cli("fit", "--config", "points.yaml", *words).code == 0
    assert "metrics/version_0/metrics.csv" in contents(folder / "runs/points/0")
    stored = yaml.safe_load((folder / "runs/points/0/config.yaml").read_text())
    assert stored["trainer"]["logger"]["init_args"]["save_dir"] == "."


def test_last_resumes_the_newest_folder_with_a_checkpoint(cli, folder):
    words = ["--config", "points.yaml", "--trainer.logger", "null", "--trainer.log_every_n_steps", "1"]
    assert cli("fit", *words).code == 0
    (folder / "runs/points/5").mkdir()
    assert cli("fit", *words, "--ckpt_path", "last", "--trainer.max_steps", "5").code == 0
    run = folder / "runs/points/0"
    assert torch.load(run / "checkpoints/last.ckpt")["global_step"] == 5
    assert {"logs/version_0/metrics.csv", "logs/version_1/metrics.csv", "config.before_0.yaml"} <= contents(run)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 5
    assert len(json.loads((run / "versions.json").read_text())) == 2
    assert not (folder / "runs/points/6").exists()


def test_a_run_resumes_from_its_folder_alone(cli, folder):
    assert cli("fit", "--config", "points.yaml", "--output", "here").code == 0
    assert cli("fit", "--ckpt_path", "here/0", "--trainer.max_steps", "4").code == 0
    assert torch.load(folder / "here/0/checkpoints/last.ckpt")["global_step"] == 4


def test_a_different_objective_gets_a_new_folder(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}
    result = cli("fit", "--ckpt_path", "runs/points/0", "--data.prompt", "a snowman", "--trainer.max_steps", "5")
    assert result.code == 0, result.err
    assert "data.init_args.prompt differs from runs/points/0: this run uses runs/points/1" in result.out
    assert {path: path.read_bytes() for path in before} == before
    assert torch.load(folder / "runs/points/1/checkpoints/last.ckpt")["global_step"] == 5
    started = json.loads((folder / "runs/points/1/versions.json").read_text())
    assert [(entry["resumed_from"], entry["at_step"]) for entry in started] == [
        ("runs/points/0/checkpoints/last.ckpt", 3)
    ]
    # From there the run resumes in its folder.
    assert cli("fit", "--ckpt_path", "runs/points/1", "--trainer.max_steps", "6").code == 0
    assert {path.name for path in (folder / "runs/points").iterdir()} == {"0", "1"}


def test_a_new_default_of_a_later_version_is_not_a_difference(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    path = folder / "runs/points/0/config.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["model"]["plan"]
    path.write_text(yaml.safe_dump(stored, explicit_end=True))
    assert cli("fit", "--config", "points.yaml", "--ckpt_path", "last", "--trainer.max_steps", "4").code == 0
    assert {path.name for path in (folder / "runs/points").iterdir()} == {"0"}


@pytest.mark.parametrize("words", [["--model.generator_optimizer", "fast.yaml"], ["--seed_everything", "4"]])
def test_a_different_rate_or_seed_is_a_different_run(cli, folder, words):
    text = "class_path: NetworkOptimizer\ninit_args: {optimizer: {class_path: Adam, init_args: {lr: .5}}}\n"
    (folder / "fast.yaml").write_text(text)
    assert cli("fit", "--config", "points.yaml").code == 0
    assert cli("fit", "--config", "points.yaml", "--ckpt_path", "last", "--trainer.max_steps", "4", *words).code == 0
    stored = torch.load(folder / "runs/points/1/checkpoints/last.ckpt")
    rate = stored["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == (0.5 if "fast.yaml" in words else 1e-3)


def test_loggers_by_one_option(cli, folder):
    words = ["--config", "points.yaml", "--trainer.log_every_n_steps", "1"]
    for logger in ("TensorBoardLogger", "[CSVLogger,TensorBoardLogger]"):
        result = cli("fit", *words, "--trainer.logger", logger)
        assert result.code == 0, result.err
    assert list(folder.glob("runs/points/0/tensorboard/version_0/events*"))
    assert list(folder.glob("runs/points/1/tensorboard/version_0/events*"))
    assert "logs/version_0/metrics.csv" in contents(folder / "runs/points/1")
    assert {path.name for path in folder.iterdir()} == {"points.yaml", "runs"}


MODES = "trainer: {callbacks: [{class_path: ModeStatistics}]}\n"


def test_validate_and_test_print_metrics_and_path(cli, folder):
    (folder / "modes.yaml").write_text(MODES)
    words = ["--config", "points.yaml", "--config", "modes.yaml"]
    assert cli("fit", *words).code == 0
    for command, name in (("validate", "validation"), ("test", "test")):
        result = cli(command, *words, "--ckpt_path", "runs/points/0")
        assert (result.code, result.err) == (0, "")
        assert "modes_covered" in result.out
        assert f"runs/points/0/{name}/0/metrics.json" in result.out
        untrained = cli(command, *words)
        assert untrained.err.splitlines() == [
            "warning: no --ckpt_path: the generator is untrained, as the recipe builds it"
        ]
    assert "no metrics" in cli("test", "--config", "points.yaml").out


FAILING = """\
from scoredistill.training.callbacks import Evaluation


class Failing(Evaluation):
    def evaluate(self, module, data, final):
        raise ValueError("nothing to see")
"""


@pytest.mark.parametrize("command", ["fit", "test", "validate"])
def test_a_failed_final_evaluation_does_not_affect_other_results(cli, folder, command):
    (folder / "failing_look.py").write_text(FAILING)
    (folder / "looks.yaml").write_text(MODES.replace("[", "[{class_path: failing_look.Failing}, "))
    result = cli(command, "--config", "points.yaml", "--config", "looks.yaml", "--output", "out")
    assert result.code == 1
    assert "warning: Failing failed: nothing to see" in result.err
    assert result.err.splitlines()[-1].startswith(f"scoredistill {command}: Failing failed, see the warnings above")
    assert "modes_covered" in result.out
    assert len(list(folder.glob("out/**/metrics.json"))) == 1


def test_no_checkpoint_between_generator_steps(cli, folder):
    (folder / "critic.yaml").write_text(
        """\
model:
  loss:
    class_path: VSD
    init_args:
      critic:
        class_path: NetworkCritic
        init_args: {network: {class_path: MLPBackbone, init_args: {shape: [2], hidden: 4, layers: 1}}}
  plan: {critic_steps: 2, mode: alternating}
  ema: .5
"""
    )
    words = ["--config", "points.yaml", "--config", "critic.yaml", "--checkpoint_every", "2"]
    assert cli("fit", *words).code == 0
    stored = torch.load(folder / "runs/points/0/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == 3
    assert stored["counters"]["ticks"] == 9


def test_evaluations_go_into_the_run_folder_of_the_checkpoint(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    for number in range(2):
        result = cli("predict", "--config", "points.yaml", "--ckpt_path", "last")
        assert result.code == 0, result.err
        path = folder / f"runs/points/0/predictions/{number}/samples.safetensors"
        assert f"wrote {path.relative_to(folder)}" in result.out
        trained = torch.load(folder / "runs/points/0/checkpoints/last.ckpt")["state_dict"]
        assert torch.equal(load_file(path)["x"], trained["distiller.generator.values"])
    assert cli("validate", "--ckpt_path", "runs/points/0/checkpoints/last.ckpt").code == 0
    assert cli("test", "--ckpt_path", "runs/points/0").code == 0
    assert (folder / "runs/points/0/test/0").is_dir()


def test_pictures_are_predicted_as_a_picture(cli, folder):
    (folder / "init.yaml").write_text("class_path: GaussianInit\ninit_args: {particles: 3, shape: [3, 8, 8]}\n")
    result = cli("predict", "--config", "points.yaml", "--model.generator.init", "init.yaml", "--output", "out")
    assert result.code == 0, result.err
    assert contents(folder / "out/predictions/0") == {"samples.png", "samples.safetensors"}


class TestRunFolder:
    def test_folder_numbers_are_unique(self, tmp_path):
        (tmp_path / "7").mkdir()
        (tmp_path / "x").mkdir()
        assert [numbered_folder(tmp_path).name for _ in range(3)] == ["8", "9", "10"]

    def test_a_concurrent_process_gets_another_number(self, tmp_path, monkeypatch):
        rivals = iter([tmp_path / "0", tmp_path / "1"])
        make = Path.mkdir

        def mkdir(path, *args, **kwargs):
            if path.name.isdecimal() and (rival := next(rivals, None)):
                make(rival)
            make(path, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        assert numbered_folder(tmp_path).name == "2"

    def test_newest_is_the_highest_number_with_a_checkpoint(self, tmp_path):
        assert RunFolder.newest(tmp_path / "none") is None
        for number in (2, 10, 11):
            (tmp_path / str(number) / "checkpoints").mkdir(parents=True)
        for number in (2, 10):
            (tmp_path / str(number) / "checkpoints" / "last.ckpt").touch()
        found = RunFolder.newest(tmp_path)
        assert found is not None
        assert found.path.name == "10"

    def test_json_is_written_atomically(self, tmp_path):
        write_json_atomically(tmp_path / "a.json", {"x": 1})
        with pytest.raises(ValueError, match="Circular"):
            write_json_atomically(tmp_path / "a.json", (circle := [], circle.append(circle))[0])
        assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
        assert contents(tmp_path) == {"a.json"}
