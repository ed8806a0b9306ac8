"""Damaged files of a run: each is named, and no run or report is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli.conftest import POINTS
from cli.test_ablate import INLINE, STUDY
from studies.folders import make_study

from scoredistill.__main__ import main
from scoredistill.cli import stages as command
from scoredistill.cli.errors import UsageError
from scoredistill.cli.viewer.run_page import report
from scoredistill.cli.viewer.server import Server
from scoredistill.studies.report import write_report
from scoredistill.training.run_folder import RunFolder

OPTIONAL = ["metrics.json", "versions.json", "cost.json", "grid.png", "logs/version_0/metrics.csv"]
NEEDED = ["config.yaml", "checkpoints/last.ckpt"]


def as_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "other content": lambda path: path.write_text("[[3]]" if path.name != "versions.json" else '{"a": 3}'),
    "a folder": as_a_folder,
}
damaged = pytest.mark.parametrize("damage", DAMAGES)
OTHERS = [name for name in DAMAGES if name not in ("truncated", "a folder")]
# For slow cases.
mostly_slowly = pytest.mark.parametrize(
    "damage", ["truncated", "a folder", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, shared by all tests."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "points.yaml").write_text(POINTS)
    words = ["--trainer.logger", "true", "--trainer.log_every_n_steps", "1"]
    words += ["--trainer.callbacks", "[ModeStatistics, ParticleGrid]", "--output", str(folder / "runs")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "points.yaml", *words]) == 0
    return folder / "runs/0"


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "runs/0")
    monkeypatch.chdir(tmp_path)
    return Path("runs/0")


@mostly_slowly
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_run_resumes_with_damaged_files(cli, run, name, damage):
    path = run / name
    DAMAGES[damage](path)
    result = cli("fit", "--ckpt_path", run, "--trainer.max_steps", "5")
    assert "Traceback" not in result.err
    # Writing a file in place of a folder fails, and the error names it.
    in_the_way = damage == "a folder" and name in ("cost.json", "grid.png")
    assert result.code == (1 if in_the_way else 0), result.err
    if in_the_way or name in ("metrics.json", "versions.json"):
        assert str(path) in result.err
    assert torch.load(run / "checkpoints/last.ckpt")["global_step"] == 5
    assert "modes_covered" in json.loads((run / "metrics.json").read_text())
    if name in ("metrics.json", "versions.json"):
        assert (run / f"{name}.damaged").exists()
        assert json.loads(path.read_text())


@damaged
@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize(
    "words",
    [["fit", "--ckpt_path"], ["export"], pytest.param(["predict", "--ckpt_path"], marks=pytest.mark.slow)],
    ids=lambda words: words[0],
)
def test_missing_or_damaged_essential_files_are_named(cli, run, words, name, damage):
    DAMAGES[damage](run / name)
    result = cli(*words, run)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert name.split("/")[-1] in result.err or "config.yaml is missing" in result.err
    assert str(run) in result.err


@pytest.mark.slow
@damaged
@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("command", ["predict", "test", "validate"])
def test_a_run_is_evaluated_with_damaged_files(cli, run, command, name, damage):
    DAMAGES[damage](run / name)
    result = cli(command, "--ckpt_path", run)
    assert (result.code, result.err) == (0, "")


@damaged
@pytest.mark.parametrize("name", [*OPTIONAL, "checkpoints/last.ckpt"])
def test_the_page_of_a_run_names_damaged_files(run, name, damage):
    if (name, damage) == ("grid.png", "a folder"):
        pytest.skip("a folder is no picture of the run")
    DAMAGES[damage](run / name)
    said = report(RunFolder(run))
    json.dumps(said, allow_nan=False)
    cut = (name, damage) == ("logs/version_0/metrics.csv", "truncated")  # as of a run that is training
    if name in ("metrics.json", "versions.json", "logs/version_0/metrics.csv") and not cut:
        assert len(said["damaged"]) == 1
        assert str(run / name) in said["damaged"][0]
    if name == "checkpoints/last.ckpt" and damage != "a folder":
        assert str(run / name) in said["damaged"][0]
    if name != "metrics.json":
        assert "modes_covered" in said["metrics"]


@damaged
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_report_names_damaged_files_and_keeps_the_rest(cli, tmp_path, name, damage):
    cells = {f"loss={loss}": {seed: {"spread": 1.0 + seed} for seed in range(3)} for loss in ("SDS", "VSD")}
    study = make_study(tmp_path / "study", cells)
    path = study / "runs/loss=SDS/seed-1/0" / name
    if name == "grid.png":  # of the first run, whose picture is shown
        path = study / "runs/loss=SDS/seed-0/0" / name
    DAMAGES[damage](path)
    result = cli("report", study)
    assert result.code == 0, result.err
    page = (study / "report.html").read_text()
    if (name, damage) == ("logs/version_0/metrics.csv", "truncated"):
        assert result.err == ""
    else:
        assert str(path) in page
    if name.endswith(".json"):
        assert str(path) in result.err
        assert str(path) in (study / "report.md").read_text()
    assert page.count("data:image/webp") == 2
    assert "| loss=VSD | 3 | 2 ± 0.58 |" in (study / "report.md").read_text()


@pytest.mark.parametrize("value", [None, "much", [1.0], True, {}])
def test_a_metric_that_is_not_a_number_is_missing_with_a_reason(tmp_path, value):
    study = make_study(tmp_path, {"loss=SDS": {0: {"spread": 1.0}, 1: {"spread": value}}})
    write_report(study)
    text = (study / "report.md").read_text()
    assert f"| loss=SDS | 1 | spread | {'is not finite' if value is None else f'is {value!r}'} |" in text


@mostly_slowly
@pytest.mark.parametrize("name", ["run.json", pytest.param("study.json", marks=pytest.mark.slow)])
def test_a_study_keeps_its_finished_runs(cli, folder, name, damage):
    (folder / "study.yaml").write_text(STUDY.replace("seeds: 2", "seeds: 1"))
    (folder / "inline.py").write_text(INLINE)
    assert cli("ablate", "study.yaml").code == 0
    path = Path("out/study.json" if name == "study.json" else "out/runs/objective=SDS/seed-0/run.json")
    DAMAGES[damage](path)
    result = cli("ablate", "study.yaml")
    assert result.code == 0, result.err
    assert "done (" not in result.out
    assert str(path) in result.err
    assert len(list(folder.glob("out/runs/*/*/*/config.yaml"))) == 2
    assert "2 of 2 runs" in Path("out/report.md").read_text()


@mostly_slowly
def test_finished_stages_are_kept(cli, folder, monkeypatch, damage):
    monkeypatch.setattr(command, "run_bound", lambda words: main(words[4:]))
    (folder / "chain.yaml").write_text("stages: {first: [points.yaml], second: [points.yaml]}\noutput: out\n")
    assert cli("stages", "chain.yaml").code == 0
    DAMAGES[damage](Path("out/stages.json"))
    result = cli("stages", "chain.yaml")
    assert result.code == 0, result.err
    assert "stage 2 of 2: second is finished, out/second/0" in result.out
    assert "out/stages.json" in result.err
    assert Path("out/stages.json.damaged").exists()
    assert cli("stages", "chain.yaml").err == ""


@damaged
def test_a_run_page_without_a_recipe_is_refused(run, damage):
    if damage == "a folder":
        pytest.skip("a folder without config.yaml is no run")
    DAMAGES[damage](run / "config.yaml")
    with pytest.raises(UsageError, match=r"runs/0/config\.yaml(, line \d+)? (is damaged|is not YAML|cannot be read)"):
        Server("127.0.0.1", 0, RunFolder(run))
