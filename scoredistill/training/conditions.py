"""Data modules of conditions: prompts, labels, cameras, numbers of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require, require_rising
from scoredistill.rendering.camera import Camera
from scoredistill.training.distillation import Distillation
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Condition

CAMERA_STREAM = 1_000_003
"""Random stream of cameras, different from the streams of training."""
LABEL_STREAM = 3_000_017
"""Random stream of labels and of prompts in a file; each process adds its rank."""


class Stream(IterableDataset):
    """An endless stream of batches, each a function of its tick alone.

    Args:
        source: creates the batches.
        tick: returns the current tick; called when an epoch begins.
    """

    def __init__(self, source: ConditionDataModule, tick: Callable[[], int]) -> None:
        self.source = source
        self.tick = tick

    def __iter__(self) -> Iterator[Batch]:
        tick = self.tick()
        while True:
            yield self.source.batch_at(tick)
            tick += 1


class ConditionDataModule(LightningDataModule):
    """Batches without cameras: a prompt, class labels, a number of samples.

    Args:
        prompt: one text for every sample; None: no prompt.
        negative_prompt: text that guidance moves away from; None: the unconditional model.
        labels: class labels, one per sample, >= 0; None: no labels.
        batch_size: number of samples for generators from noise, >= 1; None: the generator decides.
        seed: seed of the stream, in [0, 2^32).
    """

    def __init__(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        labels: Sequence[int] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        require(">= 0", labels=labels)
        require(">= 1", batch_size=batch_size)
        require("[0, 2^32)", seed=seed)
        super().__init__()
        self.classes: int | None = None
        self.prompt = prompt
        self.negative_prompt = negative_prompt
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed

    def batch_at(self, tick: int) -> Batch:
        """The training batch of a tick."""
        label = None if self.labels is None else torch.as_tensor(self.labels)
        empty = self.prompt is None and label is None
        condition = None if empty else Condition(self.prompt, self.negative_prompt, label)
        return Batch(condition, self.batch_size)

    def evaluation_batches(self) -> list[Batch]:
        """The batches of validate, test and predict."""
        return [self.batch_at(0)]

    def train_dataloader(self) -> DataLoader:
        """The stream of training batches, starting at the current tick."""
        return DataLoader(Stream(self, self._tick), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The evaluation batches."""
        return DataLoader(self.evaluation_batches(), batch_size=None)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader:
        """The evaluation batches."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """The evaluation batches."""
        return self.val_dataloader()

    def _tick(self) -> int:
        return 0 if self.trainer is None else int(cast(Distillation, self.trainer.lightning_module).ticks)


class PromptAndCameras(ConditionDataModule):
    """A prompt with random cameras.

    Azimuths are stratified over a batch: the V cameras are in V equal sectors, which are rotated jointly at random.
    Elevation is uniform in angle or, half of the time, uniform on the sphere; radius, field of view and jitter are
    uniform. DreamFusion adds normal noise to the target and the up direction: its values are position_jitter .1,
    target_std .2 and up_std .02. ProlificDreamer has no jitter.

    "DreamFusion: Text-to-3D using 2D Diffusion" (2022), arXiv:2209.14988.

    Args:
        prompt: the text.
        negative_prompt: text that guidance moves away from; None: the unconditional model.
        views: cameras V per step, >= 1; every particle is rendered from each.
        elevation: range in degrees, in [-90, 90].
        azimuth: range in degrees, in [-360, 720]; [0, 360] is a full circle, 0 the front.
        radius: range of the distance from the origin, in world units, > 0; the object is in [-1, 1]^3.
        fov: range of the vertical field of view in degrees, in (0, 180).
        position_jitter: largest displacement of the camera along each axis, in world units, >= 0.
        target_jitter: largest displacement of the target along each axis, in world units, >= 0.
        target_std: standard deviation of a normal displacement of the target along each axis, in world units, >= 0.
        up_std: standard deviation of the up direction along each axis, >= 0; 0: the horizon is level.
        evaluation_views: number of cameras of validate, test and predict, evenly spaced around the object, >= 1.
        evaluation_elevation: their elevation in degrees, in [-90, 90].
        seed: seed of the stream, in [0, 2^32).
    """

    def __init__(
        self,
        prompt: str,
        negative_prompt: str | None = None,
        views: int = 4,
        elevation: tuple[float, float] = (-10.0, 60.0),
        azimuth: tuple[float, float] = (0.0, 360.0),
        radius: tuple[float, float] = (2.4, 2.8),
        fov: tuple[float, float] = (38.0, 45.0),
        position_jitter: float = 0.1,
        target_jitter: float = 0.05,
        target_std: float = 0.0,
        up_std: float = 0.0,
        evaluation_views: int = 8,
        evaluation_elevation: float = 15.0,
        seed: int = 0,
    ) -> None:
        require(">= 1", views=views, evaluation_views=evaluation_views)
        require("[-90, 90]", elevation=elevation, evaluation_elevation=evaluation_elevation)
        require("[-360, 720]", azimuth=azimuth)
        require("> 0", radius=radius)
        require("(0, 180)", fov=fov)
        require(">= 0", position_jitter=position_jitter, target_jitter=target_jitter)
        require(">= 0", target_std=target_std, up_std=up_std)
        require("[0, 2^32)", seed=seed)
        super().__init__(prompt, negative_prompt, seed=seed)
        self.text = prompt
        require_rising(elevation=elevation, azimuth=azimuth, radius=radius, fov=fov)
        self.views = views
        self.elevation = elevation
        self.azimuth = azimuth
        self.radius = radius
        self.fov = fov
        self.position_jitter = position_jitter
        self.target_jitter = target_jitter
        self.target_std = target_std
        self.up_std = up_std
        self.evaluation_views = evaluation_views
        self.evaluation_elevation = evaluation_elevation

    def setup(self, stage: str) -> None:
        """Refuse cameras that could be inside the object.

        Raises:
            ValueError: if a camera can be closer to the origin than the generator's initial surface.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        generator = module.distiller.generator if isinstance(module, Distillation) else None
        if not isinstance(generator, SceneGenerator):
            return
        nearest = self.radius[0] - 3**0.5 * self.position_jitter
        solid = generator.solid_radius
        if solid > max(nearest, 0):
            raise ValueError(
                f"data.radius starts at {self.radius[0]:g}; with position_jitter a camera can be within {nearest:.3g} "
                f"of the origin, and {type(generator).__name__} is initially solid up to {solid:g}: choose larger "
                "radii or a hollow initial shape"
            )

    def batch_at(self, tick: int) -> Batch:
        rng = generator_at(self.seed, tick, CAMERA_STREAM)
        return Batch(Condition(self.prompt, self.negative_prompt, camera=self.cameras(rng)))

    def cameras(self, rng: torch.Generator) -> Camera:
        """V random cameras."""
        low, high = self.azimuth
        sector = (torch.arange(self.views) + torch.rand(1, generator=rng)) / self.views
        azimuth = low + (high - low) * sector
        elevation = self._elevations(rng)
        radius = self._uniform(self.radius, rng)
        fov = self._uniform(self.fov, rng)
        target, offset = (
            largest * (2 * torch.rand(self.views, 3, generator=rng) - 1)
            for largest in (self.target_jitter, self.position_jitter)
        )
        target = target + self.target_std * torch.randn(self.views, 3, generator=rng)
        tilt = self.up_std * torch.randn(self.views, 3, generator=rng)
        return Camera.orbit(azimuth, elevation, radius, fov, target, offset, tilt)

    def evaluation_cameras(self) -> Camera:
        """Fixed cameras around the object, which training does not use exactly."""
        n = self.evaluation_views
        azimuth = 360 * torch.arange(n) / n
        middle = [torch.full((n,), sum(ends) / 2) for ends in (self.radius, self.fov)]
        return Camera.orbit(azimuth, torch.full((n,), self.evaluation_elevation), *middle)

    def evaluation_batches(self) -> list[Batch]:
        return [Batch(Condition(self.prompt, self.negative_prompt, camera=self.evaluation_cameras()))]

    def _uniform(self, ends: tuple[float, float], rng: torch.Generator) -> Tensor:
        return ends[0] + (ends[1] - ends[0]) * torch.rand(self.views, generator=rng)

    def _elevations(self, rng: torch.Generator) -> Tensor:
        in_angle = self._uniform(self.elevation, rng)
        ends = torch.sin(torch.deg2rad(torch.tensor(self.elevation))).tolist()
        on_sphere = torch.rad2deg(torch.asin(self._uniform((ends[0], ends[1]), rng).clamp(-1, 1)))
        return torch.where(torch.rand(self.views, generator=rng) < 0.5, in_angle, on_sphere)


class Labels(ConditionDataModule):
    """Uniform class labels without data, for a class-conditional student that learns only from its teacher.

    Args:
        classes: number of classes, >= 1.
        batch_size: samples per batch and process, >= 1.
        evaluation_size: number of samples of validate, test and predict, whose labels cycle from 0 on, >= 1.
        seed: seed of the stream, in [0, 2^32).

    Raises:
        ValueError: if a number is not positive.
    """

    batch_size: int

    def __init__(self, classes: int, batch_size: int, evaluation_size: int = 64, seed: int = 0) -> None:
        require(">= 1", classes=classes, batch_size=batch_size, evaluation_size=evaluation_size)
        require("[0, 2^32)", seed=seed)
        super().__init__(batch_size=batch_size, seed=seed)
        self.classes = self._count = classes
        self.evaluation_size = evaluation_size

    def batch_at(self, tick: int) -> Batch:
        label = uniform_labels(
            self._count, self.batch_size, generator_at(self.seed, tick, LABEL_STREAM + rank_of(self))
        )
        return Batch(Condition(label=label), self.batch_size)

    def evaluation_batches(self) -> list[Batch]:
        labels = torch.arange(self.evaluation_size) % self._count
        return [Batch(Condition(label=label), len(label)) for label in labels.split(self.batch_size)]


class PromptFile(ConditionDataModule):
    """Prompts of a text file without data, for a text-conditional student that learns only from its teacher.

    Each line is a prompt; empty lines are skipped. Batches are drawn with replacement, every line with the same
    probability. A batch is a function of seed, tick and rank, so a resumed run uses the same prompts.

    Args:
        file: path of the file, in UTF-8.
        batch_size: samples per batch and process, >= 1.
        negative_prompt: text that guidance moves away from; None: the unconditional model.
        evaluation_size: number of samples of validate, test and predict, whose prompts cycle from the first line on,
            >= 1.
        seed: seed of the stream, in [0, 2^32).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it has no prompt or is not UTF-8, or a number is not positive.
    """

    batch_size: int

    def __init__(
        self,
        file: str | Path,
        batch_size: int,
        negative_prompt: str | None = None,
        evaluation_size: int = 64,
        seed: int = 0,
    ) -> None:
        require(">= 1", batch_size=batch_size, evaluation_size=evaluation_size)
        require("[0, 2^32)", seed=seed)
        super().__init__(negative_prompt=negative_prompt, batch_size=batch_size, seed=seed)
        if not Path(file).is_file():
            raise FileNotFoundError(f"data.file: there is no {file}; give a text file with one prompt per line")
        try:
            lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"data.file: {file} is not UTF-8 ({error})") from error
        self.prompts = tuple(line.strip() for line in lines if line.strip())
        if not self.prompts:
            raise ValueError(f"data.file: {file} has no prompt; write one per line")
        self.evaluation_size = evaluation_size

    def batch_at(self, tick: int) -> Batch:
        rng = generator_at(self.seed, tick, LABEL_STREAM + rank_of(self))
        return self._batch(torch.randint(len(self.prompts), (self.batch_size,), generator=rng).tolist())

    def evaluation_batches(self) -> list[Batch]:
        index = torch.arange(self.evaluation_size) % len(self.prompts)
        return [self._batch(part.tolist()) for part in index.split(self.batch_size)]

    def _batch(self, index: list[int]) -> Batch:
        return Batch(Condition(tuple(self.prompts[i] for i in index), self.negative_prompt), len(index))


def rank_of(data: ConditionDataModule) -> int:
    """The rank of the process of a data module."""
    return 0 if data.trainer is None else int(data.trainer.global_rank)


def uniform_labels(classes: int, size: int, rng: torch.Generator) -> Tensor:
    """Independent labels, each class with the same probability."""
    return torch.randint(classes, (size,), generator=rng)
