"""A study's file: its content, and errors in it."""

from pathlib import Path

import pytest

from scoredistill.studies.axes import StudyError
from scoredistill.studies.study import cells_of, read_study

STUDY = """\
recipe: points.yaml
options: {trainer.max_steps: 5, model.generator_optimizer: {optimizer: Adam}}
axes:
  objective:
    SDS: {model.loss: SDS}
    VSD: vsd.yaml
  model.guidance.scale: [1, 7.5]
seeds: 2
baseline: {objective: VSD, model.guidance.scale: 7.5}
leave_out: [{objective: SDS, scale: 7.5}]
metrics: spread
launcher: {class_path: LocalProcesses, init_args: {processes: 1}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    (tmp_path / "points.yaml").write_text("model: {}\n")
    (tmp_path / "vsd.yaml").write_text("model: {}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(text: str) -> Path:
        (tmp_path / "study.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def test_cells_are_all_combinations_except_the_excluded(write, tmp_path):
    study = read_study(write(STUDY))
    assert [axis.name for axis in study.axes] == ["objective", "scale"]
    assert list(study.seeds) == [0, 1]
    assert study.baseline == {"objective": "VSD", "scale": "7.5"}
    assert study.output == "runs/studies/study"
    assert study.metrics == ["spread"]
    cells = cells_of(study)
    assert [cell.name for cell in cells] == [
        "objective=SDS,scale=1",
        "objective=VSD,scale=1",
        "objective=VSD,scale=7.5",
    ]
    assert cells[0].words_under(1) == [
        f"--config={tmp_path}/points.yaml",
        "--trainer.max_steps=5",
        "--model.generator_optimizer={optimizer: Adam}",
        "--model.loss=SDS",
        "--model.guidance.scale=1",
        "--seed_everything=1",
    ]
    assert list(cells[2].words)[:2] == [f"--config={tmp_path}/points.yaml", f"--config={tmp_path}/vsd.yaml"]
    assert cells[2].folder(1) == "runs/objective=VSD,scale=7.5/seed-1"


def test_values_on_one_line(write):
    text = "recipe: points.yaml\naxes: {model.x: [null, true, [1, 2], {a: {b: c}}, 1.0e-3, text with words]}\n"
    cells = cells_of(read_study(write(text)))
    words = [cell.words[-1] for cell in cells]
    assert words == [
        f"--model.x={value}" for value in ("null", "true", "[1, 2]", "{a: {b: c}}", "0.001", "text with words")
    ]
    assert cells[3].folder(0) == "runs/x=_a_b_c_/seed-0"


def test_axes_with_equal_last_parts_keep_their_full_names(write):
    study = read_study(write("recipe: points.yaml\naxes: {a.lr: [1, 2], b.lr: [3]}\nseeds: [4, 7]\n"))
    assert [axis.name for axis in study.axes] == ["a.lr", "b.lr"]
    assert study.baseline == {"a.lr": "1", "b.lr": "3"}
    assert cells_of(study)[0].words_under(7)[-1] == "--seed_everything=7"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("recipe: points.yaml", ""), "needs `recipe:`"),
        (("seeds: 2", "seed: 2"), "a study has no key 'seed'. Did you mean 'seeds'?"),
        (("seeds: 2", "trainer: {max_steps: 2}"), "Settings of its runs belong under options"),
        (("seeds: 2", "seeds: [1, 1]"), "seeds: one is listed twice"),
        (("seeds: 2", "seeds: three"), "seeds: expected the number of seeds, or a list of them, got 'three'"),
        (("seeds: 2", "seeds: 0"), "seeds: expected"),
        (("seeds: 2", "seeds: true"), "seeds: expected"),
        (("seeds: 2", "seeds: [0, true]"), "seeds: expected"),
        (("{objective: VSD, ", "{objectiv: VSD, "), "baseline: there is no axis 'objectiv'. Did you mean 'objective'?"),
        (("{objective: VSD, ", "{objective: VDS, "), "the axis objective has no value 'VDS'. Did you mean 'VSD'"),
        (("scale: 7.5}]", "scale: 8}]"), "leave_out: the axis model.guidance.scale has no value '8'"),
        (("[{objective: SDS, scale: 7.5}]", "[{objective: VSD}]"), "leave_out leaves out the baseline"),
        (("[1, 7.5]", "[]"), "axes.model.guidance.scale: expected a list of values, or names"),
        (("[1, 7.5]", "[7.5, 7.5]"), "'7.5' is listed twice"),
        (("{model.loss: SDS}", "3"), "axes.objective.SDS: expected dotted keys with values"),
        (
            ("trainer.max_steps: 5", "seed_everything: 5"),
            "options: seed_everything cannot be set per run, the study sets it: use the study's key seeds",
        ),
        (("trainer.max_steps: 5", "output: out"), "output cannot be set per run, the study sets it"),
        (("launcher: {", "launcher: [{"), "is not YAML"),
        (("launcher: {class_path: LocalProcesses, init_args: {processes: 1}}", "launcher: 3"), "launcher: expected"),
    ],
)
def test_errors_of_a_study_file_are_named(write, change, said):
    text = STUDY.replace(*change)
    assert text != STUDY
    path = write(text)
    with pytest.raises(StudyError) as error:
        cells_of(read_study(path))
    assert said in str(error.value)
    assert "study.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [("on", "off"), ("true", "false"), ("yes", "no"), ("1", "2")])
def test_ambiguous_yaml_words_are_read_as_names(write, words):
    values = f"{{{words[0]}: {{model.loss: SDS}}, {words[1]}: {{model.loss: VSD}}}}"
    text = f"recipe: points.yaml\naxes: {{objective: {values}}}\n"
    study = read_study(write(text + f"baseline: {{objective: {words[1]}}}\n"))
    assert tuple(value.name for value in study.axes[0].values) == words
    assert study.baseline == {"objective": words[1]}


@pytest.mark.parametrize("names", [("a b", "a/b"), ("sds", "SDS")])  # some file systems do not tell a from A
def test_two_cells_never_share_a_folder(write, names):
    values = ", ".join(f"{name}: {{model.loss: SDS}}" for name in names)
    text = f"recipe: points.yaml\naxes: {{objective: {{{values}}}}}\n"
    with pytest.raises(StudyError, match="two cells would share one folder"):
        cells_of(read_study(write(text)))


def test_a_missing_or_invalid_file_is_an_error(write, tmp_path):
    with pytest.raises(StudyError, match="neither a file nor a shipped recipe"):
        read_study(tmp_path / "nowhere.yaml")
    with pytest.raises(StudyError, match="not a study"):
        read_study(write("- a\n"))
