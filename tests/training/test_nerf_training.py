"""NeRF particles in training: resuming, and callbacks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from training.test_module import fit, trainer

from scoredistill.critics import ParticleCritic
from scoredistill.diffusion import NoiseLevelTimesteps
from scoredistill.generators.fields import DenseGrid, RandomBackground
from scoredistill.generators.nerf import NeRF, Occupancy
from scoredistill.losses import VSD
from scoredistill.rendering.mesh import Mesh
from scoredistill.teachers import Gallery
from scoredistill.training import Distillation, NetworkOptimizer, PromptAndCameras, UpdatePlan
from scoredistill.training.callbacks import GalleryFidelity, MeshExport, ParticleGrid, Turntable


def module() -> Distillation:
    occupancy = Occupancy(resolution=16, every=2)
    nerf = NeRF(2, DenseGrid(16), occupancy=occupancy, resolution=16, samples=16, seed=3)
    return Distillation(
        nerf, Gallery(), VSD(ParticleCritic()), timesteps=NoiseLevelTimesteps(5.0, 2.0), ema=0.5, seed=1
    )


def data() -> PromptAndCameras:
    return PromptAndCameras("a blue donut", views=2, evaluation_views=3)


class SaveAt(Callback):
    """Keeps a checkpoint of one step."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_is_bit_identical_with_its_grids_and_average(tmp_path: Path) -> None:
    whole, resumed = module(), module()
    fit(whole, 7, SaveAt(3, tmp_path / "three.ckpt"), data=data())
    fit(resumed, 7, resume=tmp_path / "three.ckpt", data=data())
    expected = whole.state_dict()
    assert resumed.counters() == whole.counters()
    assert resumed.eval_generator.progress == resumed.distiller.generator.progress == 6 / 7
    assert any("occupancy" in key for key in expected)
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("parts", [2, 4])
def test_law_18_accumulation_over_cameras_changes_nothing_but_rounding(parts: int) -> None:
    results = []
    for accumulate in (1, parts):
        nerf = NeRF(2, DenseGrid(8), resolution=8, samples=8, seed=3, background=RandomBackground())
        optimizer = NetworkOptimizer(lambda groups: torch.optim.SGD(groups, lr=1.0))
        settings = {"generator_optimizer": optimizer, "plan": UpdatePlan(accumulate=accumulate), "seed": 1}
        model = Distillation(
            nerf, Gallery(), VSD(ParticleCritic()), timesteps=NoiseLevelTimesteps(5.0, 2.0), **settings
        )
        fit(model, 2, data=PromptAndCameras("a blue donut", views=4))
        results.append(model.state_dict())
    start = NeRF(2, DenseGrid(8), resolution=8, samples=8, seed=3).state_dict()["field.encoding.grid"]
    assert (results[0]["distiller.generator.field.encoding.grid"] - start).abs().max() > 1e-3
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-5, atol=1e-7, msg=key)


def looked_at(folder: Path, *callbacks: Callback) -> Trainer:
    """A trainer in a folder, after the callbacks at the end of fit."""
    made, distillation, cameras = trainer(1), module(), data()
    made._default_root_dir = str(folder)
    made.datamodule = cameras
    for callback in callbacks:
        callback.on_fit_end(made, distillation)
    return made


def test_fidelity_reports_every_particle(tmp_path: Path) -> None:
    looked_at(tmp_path, GalleryFidelity(resolution=16, mesh_resolution=24))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {f"{name}/particle_{i}" for name in ("psnr", "variant", "chamfer") for i in (0, 1)} <= metrics.keys()
    assert 1 <= metrics["variants_covered"] <= 2
    assert 0 < metrics["chamfer/particle_0"] < 1
    assert metrics["psnr/mean"] == (metrics["psnr/particle_0"] + metrics["psnr/particle_1"]) / 2


def test_an_empty_particle_has_no_chamfer_metric_and_the_others_keep_theirs(tmp_path: Path) -> None:
    made, distillation = trainer(1), module()
    made._default_root_dir, made.datamodule = str(tmp_path), data()
    for nerf in (distillation.distiller.generator, distillation.eval_generator):
        with torch.no_grad():
            nerf.field.encoding.grid[1, ..., 0] -= 60
    with pytest.warns(UserWarning, match=r"chamfer/particle_1 is left out: particle 1 is empty everywhere"):
        GalleryFidelity(resolution=16, mesh_resolution=24).on_fit_end(made, distillation)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"chamfer/particle_0", "psnr/particle_1", "variants_covered"} <= metrics.keys()
    assert "chamfer/particle_1" not in metrics


def test_pictures_and_meshes_are_written(tmp_path: Path) -> None:
    callbacks = (ParticleGrid(resolution=16, views=3), Turntable(4, 16, (".webp", ".gif")), MeshExport(24))
    looked_at(tmp_path, *callbacks)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (2 + 3 * 18, 2 + 2 * 18)
    for suffix in (".webp", ".gif"):
        with Image.open(tmp_path / f"turntable{suffix}") as turn:
            assert (turn.size, turn.n_frames) == ((32, 16), 4)
    assert all(Mesh.load(tmp_path / "meshes" / f"particle_{i}.glb").watertight for i in (0, 1))
