"""Callbacks: metrics and pictures of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scoredistill.evaluation import mode_statistics
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS
from scoredistill.teachers import Empirical, GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation
from scoredistill.training.callbacks import ModeStatistics, ParticleGrid, Summary, merge_metrics
from scoredistill.training.callbacks.evaluation import EvaluationError
from scoredistill.training.callbacks.pictures import scatter_picture


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MEANS = torch.tensor([[4.0, 0.0, 0.0], [-4.0, 1.0, 0.0], [0.0, -5.0, 2.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
FORMS = {
    "isotropic": {"stds": torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)},
    "low rank": {"stds": 0.3, "factors": 0.2 * torch.ones(3, 1, 3, dtype=torch.float64)},
}


@pytest.mark.parametrize("form", FORMS)
def test_perfect_samples_have_spread_one_and_the_mixtures_weights(form: str) -> None:
    teacher, n = GaussianMixture(MEANS, weights=WEIGHTS, **FORMS[form]), 2000
    x, component = teacher.sample(n, rng=rng())
    metrics = mode_statistics(x, teacher)
    assert metrics["modes_covered"] == 3
    # spread^2 is a mean of squares of n - 3 samples: 2 / (D n) of relative variance, more where dimensions correlate.
    variance = teacher.variance.mean() + (0 if teacher.spread is None else teacher.spread[0].sum() / 3)
    total = teacher.variance.expand(3, 3)[0] + (0 if teacher.spread is None else torch.tensor([0.0, 0.0, 0.12]))
    relative = 2 / (3 * n) if form == "isotropic" else float(2 * (total**2).sum() / 9 / variance**2 / n)
    assert metrics["spread"] ** 2 == pytest.approx(1, abs=3 * relative**0.5)
    shares = torch.bincount(component) / n
    assert metrics["weight_error"] == pytest.approx(float((shares - WEIGHTS).abs().max()))
    assert metrics["weight_error"] < 3 * (0.25 / n) ** 0.5
    assert metrics["within_3_std"] > 0.99


def test_collapsed_particles_are_detected() -> None:
    teacher = GaussianMixture(MEANS, 0.5, WEIGHTS)
    collapsed = mode_statistics(MEANS[[0, 0, 0, 1]], teacher)
    assert collapsed == {"modes_covered": 2.0, "weight_error": pytest.approx(0.25), "spread": 0.0, "within_3_std": 1.0}
    doubled = MEANS.repeat_interleave(2, 0) + torch.tensor([1.0, -1.0]).repeat(3)[:, None]
    assert mode_statistics(doubled, teacher)["spread"] == pytest.approx(2 * 2**0.5)  # ddof = 1 in each mode
    assert mode_statistics(MEANS + 2, teacher)["within_3_std"] == 0


def test_diracs_have_coverage_but_no_spread() -> None:
    metrics = mode_statistics(MEANS[[0, 2]] + 0.1, Empirical(MEANS))
    assert metrics == {"modes_covered": 2.0, "weight_error": pytest.approx(1 / 3)}


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_scatter_is_a_picture(dims: int, with_teacher: bool) -> None:
    x = torch.randn(50, dims, generator=rng())
    picture = scatter_picture(x, 2 * torch.randn(50, dims, generator=rng(1)) if with_teacher else None, size=120)
    assert picture.shape == (120, 120, 3)
    assert picture.dtype == torch.uint8
    blue = (picture[..., 2].int() - picture[..., 0].int()) > 60
    assert int(blue.sum()) > 50


@pytest.mark.parametrize("shape", [(3, 3), (3, 1, 8, 8)])
def test_only_points_can_be_scattered(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="only points in one or two dimensions"):
        scatter_picture(torch.zeros(shape))


def run(tmp_path: Path, values: Tensor, teacher: GaussianMixture) -> tuple[SimpleNamespace, Distillation]:
    """A stand-in for a trainer with a run folder, and a module with particles."""
    trainer = SimpleNamespace(
        is_global_zero=True, default_root_dir=str(tmp_path), global_step=0, loggers=[], datamodule=ConditionDataModule()
    )
    return trainer, Distillation(ImageParticles(values), teacher, SDS())


def picture(path: Path) -> Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return torch.as_tensor(np.asarray(image).copy())


def test_pictures_are_tiled_as_a_square(tmp_path: Path) -> None:
    digits = torch.full((9, 1, 8, 8), -1.0)
    digits[4] = 1.0
    trainer, module = run(tmp_path, digits, Empirical(digits))
    callback = ParticleGrid(every=10)
    for step in (9, 10, 10, 11):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, 0)
    callback.on_fit_end(trainer, module)
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["grid.png", "step_000010.png"]
    grid = picture(tmp_path / "grid.png")
    assert grid.shape == (3 * 50 + 2, 3 * 50 + 2, 3)  # 8 pixels enlarged six times, and lines of two
    tiles = [[int(grid[27 + 50 * i, 27 + 50 * j].sum()) for j in range(3)] for i in range(3)]
    assert tiles == [[0, 0, 0], [0, 765, 0], [0, 0, 0]]
    assert torch.equal(grid, picture(tmp_path / "pictures" / "step_000010.png"))


def test_points_are_drawn_over_the_teacher(tmp_path: Path) -> None:
    trainer, module = run(tmp_path, torch.randn(20, 2), GaussianMixture(torch.zeros(1, 2), 1.0))
    ParticleGrid(every=0).on_fit_end(trainer, module)
    assert picture(tmp_path / "grid.png").shape == (480, 480, 3)
    assert not (tmp_path / "pictures").exists()


def test_other_processes_draw_nothing(tmp_path: Path) -> None:
    trainer, module = run(tmp_path, torch.randn(4, 2), GaussianMixture(torch.zeros(1, 2), 1.0))
    trainer.is_global_zero = False
    ParticleGrid().on_fit_end(trainer, module)
    merge_metrics(trainer, {"a": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_merged_into_one_sorted_object(tmp_path: Path) -> None:
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=str(tmp_path))
    merge_metrics(trainer, {"psnr": 20.0, "chamfer": 0.1})
    merge_metrics(trainer, {"seconds": 3.5, "psnr": 21.0})
    text = (tmp_path / "metrics.json").read_text()
    assert list(json.loads(text).items()) == [("chamfer", 0.1), ("psnr", 21.0), ("seconds", 3.5)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_mode_statistics_run_at_the_end_and_count_classes(tmp_path: Path) -> None:
    teacher = GaussianMixture(MEANS, 0.5, labels=torch.tensor([0, 1, 1]))
    trainer, module = run(tmp_path, MEANS[[0, 0, 1, 2]] + 0.1, teacher)
    logged: list[tuple[dict[str, float], int]] = []
    trainer.loggers = [SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))]
    ModeStatistics().on_fit_end(trainer, module)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["class_share/0"] == metrics["class_share/1"] == 0.5
    assert metrics["nearest_mode_distance"] == pytest.approx(0.1 * 3**0.5)
    assert metrics["modes_covered"] == 3
    assert logged[0][0] == metrics


def test_mode_statistics_need_a_mixture() -> None:
    module = SimpleNamespace(eval_generator=torch.nn.Identity(), distiller=SimpleNamespace(teacher=None))
    with pytest.raises(TypeError, match="ModeStatistics needs ImageParticles"):
        ModeStatistics().evaluate(module, ConditionDataModule(), True)  # type: ignore[arg-type]


def test_a_missing_matplotlib_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    trainer, module = run(tmp_path, torch.randn(4, 2), GaussianMixture(torch.zeros(1, 2), 1.0))
    with pytest.raises(ImportError, match=r"install scoredistill\[plots\]"):
        ParticleGrid().setup(trainer, module, "fit")
    trainer, module = run(tmp_path, torch.zeros(4, 1, 8, 8), GaussianMixture(torch.zeros(1, 1, 8, 8), 1.0))
    ParticleGrid().setup(trainer, module, "fit")


def test_without_a_summary_a_failure_is_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, module = run(tmp_path, torch.zeros(4, 3), GaussianMixture(torch.zeros(1, 3), 1.0))
    trainer.callbacks = []
    with pytest.raises(ValueError, match="one or two dimensions"):
        ParticleGrid().on_fit_end(trainer, module)
    trainer.callbacks = [Summary()]
    ParticleGrid().on_fit_end(trainer, module)
    assert capsys.readouterr().err.startswith("warning: ParticleGrid failed: only points in one or two dimensions")
    with pytest.raises(EvaluationError, match="ParticleGrid failed"):
        trainer.callbacks[0].on_fit_end(trainer, module)
    assert (tmp_path / "metrics.json").exists()
