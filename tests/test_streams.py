"""A run completes with any standard streams: closed, without a reader, full, or with a limited encoding."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import Forked

import scoredistill
from scoredistill.__main__ import main

RECIPE = """\
model:
  generator: {class_path: ImageParticles, init_args: {init: [[0.0, 0.25], [0.5, 0.0]]}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}
  loss: SDS
trainer:
  max_steps: 3
  accelerator: cpu
  log_every_n_steps: 1
  callbacks:
  - ModeStatistics
  - {class_path: RunProgress, init_args: {seconds: 0.0}}
  - talking.Talking
"""
TALKING = """\
import sys

from pytorch_lightning import Callback


class Talking(Callback):
    def on_train_batch_end(self, *rest):
        print("±½ 十 \\udcff" * 2000)
        sys.stdout.flush()
        print("±½ 十", file=sys.stderr, flush=True)
"""


def closed(*numbers: int) -> None:
    for number in numbers:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def without_a_reader() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)


def full() -> None:
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, 1)
    os.dup2(device, 2)


def in_ascii() -> None:
    sys.stdout, sys.stderr = (open(number, "w", encoding="ascii", closefd=False) for number in (1, 2))  # noqa: SIM115


STREAMS: dict[str, Callable[[], None]] = {
    "stdout closed": lambda: closed(1),
    "stderr closed": lambda: closed(2),
    "all closed": lambda: closed(0, 1, 2),
    "no reader": without_a_reader,
    "full": full,
    "ASCII": in_ascii,
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "talking.py").write_text(TALKING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(change: Callable[[], None], *words: str) -> int:
    """Run the command line as a separate program with changed streams."""
    change()
    sys.argv = ["scoredistill", *words]
    code = main()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


@pytest.mark.skipif(sys.platform == "win32", reason="has other streams")
@pytest.mark.parametrize("change", STREAMS)
def test_a_run_ends_well(recipe, change):
    words = ["fit", "--config", "recipe.yaml", "--output", "out"]
    process = Forked(lambda: program(STREAMS[change], *words), recipe / "log.txt")
    assert process.wait() == 0, process.said
    assert torch.load(recipe / "out/0/checkpoints/last.ckpt")["global_step"] == 3
    assert json.loads((recipe / "out/0/metrics.json").read_text())
    assert "Traceback" not in process.said
    if change == "ASCII":
        assert "\\xb1\\xbd \\u5341 \\udcff" in process.said
    # No output of a stream is in a file: a newly opened file gets the number of a closed stream.
    assert not [
        path for path in (recipe / "out").rglob("*") if path.is_file() and b"final metrics" in path.read_bytes()
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="has other streams")
@pytest.mark.parametrize("words", [["--help"], ["recipes"], ["fit", "--config", "nowhere.yaml"]], ids=" ".join)
@pytest.mark.parametrize("change", STREAMS)
def test_simple_commands_work(recipe, change, words):
    process = Forked(lambda: program(STREAMS[change], *words), recipe / "log.txt")
    assert process.wait() == (2 if "nowhere.yaml" in words else 0), process.said
    assert "Traceback" not in process.said


def test_streams_of_a_notebook_are_left_alone(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    assert main(["--version"]) == 0
    assert own.getvalue() == f"scoredistill {scoredistill.__version__}\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no sh")
@pytest.mark.parametrize(
    ("variables", "end"),
    [
        *(({}, end) for end in (">&-", "2>&-", "<&- >&- 2>&-", "| true", "> /dev/full", "> out.txt")),
        *(({"PYTHONIOENCODING": "ascii"}, end) for end in ("2>&-", "> out.txt")),
        *(({"LC_ALL": "C", "PYTHONUTF8": "0"}, end) for end in ("| true", "> out.txt")),
    ],
)
def test_a_run_in_a_shell_ends_well(recipe, end, variables):
    line = f"{sys.executable} -m scoredistill fit --config recipe.yaml; echo $? > code.txt"
    path = {"PYTHONPATH": str(Path(scoredistill.__file__).parents[1])}
    subprocess.run(["sh", "-c", f"({line}) {end}"], env={**os.environ, **path, **variables}, timeout=120)
    assert (recipe / "code.txt").read_text() == "0\n"
    assert json.loads((recipe / "runs/recipe/0/metrics.json").read_text())
