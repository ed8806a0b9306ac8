"""The conditions of each tick."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS
from scoredistill.recipe_library import read, shipped
from scoredistill.teachers import GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, PromptAndCameras
from scoredistill.training.conditions import Stream
from scoredistill.types import Batch


def cameras(data: PromptAndCameras, ticks: int = 300):  # type: ignore[no-untyped-def]
    return [data.batch_at(tick).condition.camera for tick in range(ticks)]


def test_azimuths_are_stratified_and_rotated_jointly() -> None:
    seen = cameras(PromptAndCameras("a mug", views=5, position_jitter=0, target_jitter=0))
    azimuth = torch.stack([camera.azimuth for camera in seen])
    steps = azimuth.sort(1).values.diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 72.0), atol=1e-9, rtol=0)
    phase = azimuth.sort(1).values[:, 0] / 72
    n = len(phase)
    assert float(phase.mean()) == pytest.approx(0.5, abs=3 / (12 * n) ** 0.5)
    assert (phase.min() < 0.02, phase.max() > 0.98) == (True, True)


def test_cameras_stay_in_their_ranges_and_fill_them() -> None:
    data = PromptAndCameras(
        "a mug", views=4, elevation=(-20, 50), azimuth=(30, 90), radius=(2, 3), fov=(30, 50), position_jitter=0,
        target_jitter=0,
    )  # fmt: skip
    seen = cameras(data)
    for values, low, high in [
        (torch.cat([camera.elevation for camera in seen]), -20, 50),
        (torch.cat([camera.azimuth for camera in seen]), 30, 90),
        (torch.cat([camera.position.norm(dim=1) for camera in seen]), 2, 3),
        (torch.cat([camera.fov for camera in seen]), 30, 50),
    ]:
        margin = (high - low) / 50
        assert low - 1e-9 <= values.min() < low + margin
        assert high - margin < values.max() <= high + 1e-9


def test_half_of_the_elevations_are_uniform_on_the_sphere() -> None:
    data = PromptAndCameras("a mug", elevation=(0, 90), position_jitter=0, target_jitter=0)
    height = torch.cat([camera.elevation for camera in cameras(data, 2000)]).deg2rad().sin()
    # E[sin e]: 2/pi for uniform angles, 1/2 on the hemisphere.
    expected, n = 0.5 * (2 / torch.pi + 0.5), len(height)
    assert float(height.mean()) == pytest.approx(expected, abs=3 * float(height.std()) / n**0.5)


def test_the_position_is_displaced_uniformly() -> None:
    data = PromptAndCameras("a mug", elevation=(0, 0), azimuth=(0, 0), radius=(2.5, 2.5), position_jitter=0.1)
    moved = torch.cat([camera.position for camera in cameras(data)]) - torch.tensor([0.0, 0.0, 2.5])
    assert 0.099 < moved.abs().max() <= 0.1
    variance, n = moved.square().mean(), moved.numel()
    assert float(variance) == pytest.approx(0.01 / 3, abs=3 * float(moved.square().std()) / n**0.5)


def test_the_target_is_displaced_within_its_bound() -> None:
    data = PromptAndCameras("a mug", radius=(2.5, 2.5), position_jitter=0, target_jitter=0.05)
    # The distance of the line of sight from the origin.
    missed = [torch.linalg.cross(camera.position, camera.pose[:, :3, 2]).norm(dim=1).max() for camera in cameras(data)]
    assert 0.03 < max(missed) <= 0.05 * 3**0.5 + 1e-9


@pytest.mark.parametrize("jitter", [0.2, 0.03])
def test_the_target_displacement_is_normal(jitter: float) -> None:
    """At elevation 0 from the front, the central ray hits the plane z = 0 at the target's x and y."""
    data = PromptAndCameras(
        "a mug",
        elevation=(0, 0),
        azimuth=(0, 0),
        radius=(50.0, 50.0),
        position_jitter=0,
        target_jitter=0,
        target_std=jitter,
    )
    pose = torch.cat([camera.pose for camera in cameras(data)])
    hit = (pose[:, :2, 3] - 50.0 * pose[:, :2, 2] / pose[:, 2:3, 2]).double()
    n = hit.numel()
    assert float(hit.mean()) == pytest.approx(0, abs=3 * jitter / n**0.5)
    # z of the target, of the order of the jitter against a distance of 50, changes x and y by less than a hundredth.
    spread = hit.square()
    assert float(spread.mean()) == pytest.approx(jitter**2, abs=3 * float(spread.std()) / n**0.5 + 0.01 * jitter**2)
    assert float((hit / jitter).pow(4).mean()) == pytest.approx(3, abs=3 * (96 / n) ** 0.5)


def test_the_horizon_is_tilted_by_the_upward_directions_jitter() -> None:
    settings = {"elevation": (0, 0), "position_jitter": 0, "target_jitter": 0}
    level = torch.cat([camera.pose for camera in cameras(PromptAndCameras("a mug", **settings))])
    assert float(level[:, 1, 0].abs().max()) < 1e-6
    tilted = torch.cat([camera.pose for camera in cameras(PromptAndCameras("a mug", up_std=0.02, **settings))])
    torch.testing.assert_close(tilted[:, :3, 2:], level[:, :3, 2:])
    spread = tilted[:, 1, 0].double().square()
    assert float(spread.mean()) == pytest.approx(0.02**2, rel=0, abs=3 * float(spread.std()) / len(spread) ** 0.5)


@pytest.mark.parametrize(
    ("recipe", "jitter"),
    [
        ("dreamfusion", (0.1, 0.0, 0.2, 0.02)),
        *((f"prolificdreamer/{stage}", (0.0, 0.0, 0.0, 0.0)) for stage in ("nerf", "geometry", "texture", "scene")),
    ],
)
def test_recipes_have_the_published_jitter(recipe: str, jitter: tuple[float, ...]) -> None:
    given = read(shipped(recipe).path)["data"]["init_args"]
    data = PromptAndCameras(**given)
    assert (data.position_jitter, data.target_jitter, data.target_std, data.up_std) == jitter


def test_a_batch_is_a_function_of_seed_and_tick() -> None:
    data, again, other = (PromptAndCameras("a mug", seed=seed) for seed in (3, 3, 4))
    torch.manual_seed(9)
    state = torch.get_rng_state()
    pose = data.batch_at(17).condition.camera.pose
    assert torch.equal(pose, again.batch_at(17).condition.camera.pose)
    assert not torch.equal(pose, data.batch_at(18).condition.camera.pose)
    assert not torch.equal(pose, other.batch_at(17).condition.camera.pose)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stream_starts_at_the_current_tick() -> None:
    data = PromptAndCameras("a mug")
    ticks = iter((0, 5))
    stream = Stream(data, lambda: next(ticks))
    for start in (0, 5):
        for i, batch in enumerate(islice(stream, 3)):
            assert torch.equal(batch.condition.camera.pose, data.batch_at(start + i).condition.camera.pose)
    first = next(iter(data.train_dataloader()))  # without a trainer from the beginning
    assert torch.equal(first.condition.camera.pose, data.batch_at(0).condition.camera.pose)


class Ticks(ConditionDataModule):
    """Records the batches of training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def on_before_batch_transfer(self, batch: tuple[int, Batch], dataloader_idx: int) -> Batch:
        self.seen.append(batch[0])
        return batch[1]

    def batch_at(self, tick: int) -> tuple[int, Batch]:  # type: ignore[override]
        return tick, super().batch_at(tick)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
def test_an_epoch_continues_where_the_last_one_ended(tmp_path: Path) -> None:
    teacher = GaussianMixture(torch.zeros(1, 2), 1.0)
    model, data = Distillation(ImageParticles(torch.ones(1, 2)), teacher, SDS()), Ticks()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": -1, "limit_val_batches": 0, "logger": False}
    Trainer(max_steps=8, limit_train_batches=3, default_root_dir=tmp_path, **settings, **quiet).fit(
        model, datamodule=data
    )
    assert data.seen == list(range(8))


def test_evaluation_cameras_are_fixed_and_evenly_spaced() -> None:
    data = PromptAndCameras("a mug", "ugly", evaluation_views=6, evaluation_elevation=25)
    batches = list(data.val_dataloader())
    assert len(batches) == 1
    condition = batches[0].condition
    assert (condition.prompt, condition.negative_prompt, len(condition.camera)) == ("a mug", "ugly", 6)
    torch.testing.assert_close(condition.camera.azimuth, torch.arange(6) * 60.0, atol=1e-9, rtol=0)
    torch.testing.assert_close(condition.camera.elevation, torch.full((6,), 25.0))


def test_conditions_without_cameras() -> None:
    assert ConditionDataModule().batch_at(3).condition is None
    assert ConditionDataModule(batch_size=4).batch_at(0).size == 4
    batch = ConditionDataModule("a digit", labels=[3, 1]).batch_at(0)
    assert (batch.condition.prompt, batch.condition.label.tolist()) == ("a digit", [3, 1])


def test_an_inverted_range_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"radius: the lower end 3 is above the upper end 2; swap them"):
        PromptAndCameras("a mug", radius=(3, 2))


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        (r"views must be at least 1, got 0", {"views": 0}),
        (r"evaluation_views must be at least 1, got -1", {"evaluation_views": -1}),
        (r"radius must be above 0, got 0", {"radius": (0, 2)}),
        (r"fov must lie in \(0, 180\), got 0", {"fov": (0, 45)}),
        (r"fov must lie in \(0, 180\), got 180", {"fov": (40, 180)}),
    ],
)
def test_impossible_cameras_are_errors_that_name_the_setting(said: str, settings: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=said):
        PromptAndCameras("a mug", **settings)
