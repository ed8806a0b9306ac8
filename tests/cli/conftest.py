"""The command line, run in this process, because starting another takes seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scoredistill.__main__ import main

POINTS = """\
# Two particles between two points.
model:
  generator: {class_path: ImageParticles, init_args: {init: [[0.0, 0.25], [0.5, 0.0]]}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}
  loss: SDS
trainer: {max_steps: 3, accelerator: cpu, logger: false}
"""


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str | Path) -> Result:
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with one recipe, points.yaml."""
    (tmp_path / "points.yaml").write_text(POINTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path
