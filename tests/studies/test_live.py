"""The display of a running study."""

import io

import pytest
from rich.console import Console

from scoredistill.studies.live import Display
from scoredistill.studies.runner import Run
from scoredistill.studies.study import Cell


@pytest.fixture
def runs(tmp_path):
    def run(cell: str, seed: int, **state) -> Run:
        folder = tmp_path / f"{cell}{seed}"
        folder.mkdir()
        return Run(Cell(cell, {}, []), seed, folder, **state)

    runs = [
        run("a", 0, state="done", began=1.0, ended=76.0),
        run("a", 1, state="running", began=80.0),
        run("b", 0, state="failed", message="[red]the gradient is not finite", began=1.0, ended=3.0),
        run("b", 1),
    ]
    (runs[1].folder / "log.txt").write_text("step 20/300 loss 1\nstep 40/300 loss .5\nsomething else\n")
    return runs


def test_a_table_on_a_terminal(runs):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with Display(2, console) as display:
        display.update(runs)
    said = text.getvalue()
    for words in ("2 of 4 runs", "seed 1", "done", "failed", "40/300", "left"):
        assert words in said


def test_a_line_for_each_ended_run_elsewhere(runs):
    text = io.StringIO()
    display = Display(2, Console(file=text, width=40))
    runs.append(Run(Cell("b", {}, []), 2, runs[0].folder, state="done"))  # by an earlier command
    display.update(runs)
    display.update(runs)
    assert text.getvalue().splitlines() == [
        "2/5 a seed 0 done (1 min 15 s)",
        "3/5 b seed 0 failed: [red]the gradient is not finite (2 s)",
    ]


def test_names_are_not_markup_and_steps_are_of_the_last_attempt(runs):
    log = runs[1].folder / "log.txt"
    log.write_text(log.read_text() + "$ scoredistill fit --config=points.yaml\n")
    runs[1].cell = runs[0].cell = Cell("lr=[1]", {}, [])
    table = Display(1, Console(file=io.StringIO())).table(runs)
    assert next(iter(table.columns[2].cells)) == "starting"
    text = io.StringIO()
    Console(file=text, width=100).print(table)
    assert "lr=[1]" in text.getvalue()


def test_a_run_without_a_log_is_starting(runs):
    (runs[1].folder / "log.txt").unlink()
    table = Display(1, Console(file=io.StringIO())).table(runs)
    assert next(iter(table.columns[2].cells)) == "starting"
