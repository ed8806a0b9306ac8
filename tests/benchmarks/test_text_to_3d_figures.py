"""The benchmark of SDS and VSD from text to 3D: its runs, metrics and table."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scoredistill.rendering.turntable import picture_grid, save_picture

FOUND = {"recognized": 0.5, "foreground": 0.25, "diversity": 0.1, "diversity_features": 0.3, "seconds": 200.0}
OWN = {"chroma_gallery": 53.4, "foreground_gallery": 0.23, "diversity_gallery": 0.42, "diversity_features_gallery": 0.6}
ACCURACY = {"recognizer_accuracy": 1.0, "recognizer_accuracy_corrupted": 0.98}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("text_to_3d")


def finish(folder: Path, **metrics: float) -> None:
    """A run's folder as `scoredistill fit` leaves it."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(FOUND | OWN | ACCURACY | metrics))
    save_picture(picture_grid(torch.zeros(24, 3, 8, 8), columns=6), folder / "grid.png")


def test_finished_runs_are_not_repeated(benchmark, tmp_path, monkeypatch, capsys) -> None:
    commands = []

    def fit(words: list[str], env: dict[str, str], check: bool):
        output = Path(words[words.index("--output") + 1])
        seed = int(words[words.index("--seed_everything") + 1])
        commands.append(words)
        finish(output / "0", recognized=0.5 + 0.1 * seed, chroma=40.0 + seed)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(benchmark.subprocess, "run", fit)
    finish(tmp_path / "SDS" / "7.5" / "seed_0" / "0", recognized=1.0)
    words = ["--seeds", "2", "--jobs", "2", "--folder", str(tmp_path), "--results", str(tmp_path / "results")]
    benchmark.main([*words, "--", "--trainer.max_steps", "3"])
    assert len(commands) == 7
    assert all(command[-2:] != ["--trainer.max_steps", "3"] and "3" in command for command in commands)
    assert sum("SDS" in command for command in commands) == 3
    assert [command[command.index("--model.guidance.init_args.scale") + 1] for command in commands].count("100.0") == 4
    benchmark.main(words)
    assert len(commands) == 7
    report = json.loads((tmp_path / "results" / "text_to_3d.json").read_text())["cells"]
    assert report["VSD 7.5"]["recognized"] == {"mean": pytest.approx(0.55), "standard_error": pytest.approx(0.05)}
    assert report["SDS 7.5"]["recognized"]["mean"] == pytest.approx(0.8)
    assert report["SDS 7.5"]["chroma"] == {"mean": 41.0, "standard_error": None}  # of seed 1: seed 0 was empty
    assert (tmp_path / "results" / "text_to_3d.png").is_file()
    assert report["VSD-SDS 7.5"]["recognized"]["mean"] == pytest.approx((0.5 - 1.0 + 0.6 - 0.6) / 2)
    assert report["VSD-SDS 7.5"]["chroma"] == {"mean": 0.0, "standard_error": None}
    lines = (tmp_path / "results" / "text_to_3d.md").read_text().splitlines()
    assert lines[-2] == "| VSD | 100 | 2 | 0.550 ± 0.050 | 40.5 ± 0.5 | 0.250 ± 0.000 | 0.100 ± 0.000 | 0.300 ± 0.000 |"
    assert lines[-1] == "| the Gallery |  |  | 1.000 | 53.4 | 0.230 | 0.420 | 0.600 |"


def test_a_failed_run_stops_the_benchmark(benchmark, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *words, **settings: type("Done", (), {"returncode": 3}))
    with pytest.raises(SystemExit, match="3"):
        benchmark.main(["--folder", str(tmp_path)])
