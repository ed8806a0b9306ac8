"""Pictures of the generator: grids, scatter plots, turntables, meshes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from scoredistill.generators.image import ImageParticles
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.turntable import (
    picture_grid,
    save_animation,
    save_picture,
    to_bytes,
    turntable_cameras,
)
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.callbacks.evaluation import Interval, Look, guarded, require_part, run_folder
from scoredistill.training.callbacks.quality import asked_texts, asks_for_classes, classes, draw_samples
from scoredistill.training.callbacks.views import particle_views
from scoredistill.training.data import ConditionDataModule, PromptAndCameras
from scoredistill.training.module import Distillation
from scoredistill.training.training_module import TrainingModule

SCENES = "a generator of 3D scenes (NeRF, DMTet; ParticleGrid draws others)"


class ParticleGrid(Look):
    """A picture of every particle, each `every` steps as pictures/step_N.png and at the end as grid.png.

    3D particles are rows, cameras columns; pictures are tiled; points are drawn over the teacher's samples. Of a
    generator from noise, samples of fixed noise are shown, class by class where training asks for classes, and
    otherwise of the evaluation's prompts where there are any.

    Args:
        every: generator steps between pictures, >= 0; 0: only the last one.
        resolution: height and width of a 3D particle's pictures, >= 1.
        views: cameras that a 3D particle is shown from, >= 1.
        samples: that are shown of a generator from noise, >= 1.
    """

    def __init__(self, every: int = 100, resolution: int = 96, views: int = 6, samples: int = 100) -> None:
        require(">= 0", every=every)
        require(">= 1", resolution=resolution, views=views, samples=samples)
        self.interval, self.resolution, self.views, self.samples = Interval(every), resolution, views, samples

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        generator = module.eval_generator
        if isinstance(generator, SceneGenerator):
            require_part(self, data, PromptAndCameras, "PromptAndCameras data for 3D scenes")
            return
        if generator.particles is not None:
            require_part(self, generator, ImageParticles, "3D scenes, ImageParticles or samples from noise")
        one = generator.values[0].shape if isinstance(generator, ImageParticles) else getattr(generator, "shape", ())
        shape: tuple[int, ...] = tuple(one)
        if len(shape) == 1:
            require_matplotlib()
            if shape[0] > 2:
                raise TypeError(f"ParticleGrid draws points in one or two dimensions, and pictures; got {shape}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw, at intervals of generator steps."""
        if self.interval.due(trainer):
            self._draw(trainer, pl_module, f"pictures/step_{trainer.global_step:06d}.png")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last picture."""
        with guarded(trainer, self):
            self._draw(trainer, pl_module, "grid.png")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        """All processes draw, because a network may be sharded over them; the first one writes."""
        with cast(TrainingModule, pl_module).gathered() as looks:
            picture = self.draw(pl_module, trainer) if looks else None
        if picture is not None and trainer.is_global_zero:
            save_picture(picture, run_folder(trainer) / name)

    def draw(self, pl_module: LightningModule, trainer: Trainer) -> Tensor:
        """The picture, (H, W, 3) uint8."""
        module = cast(TrainingModule, pl_module)
        generator = module.eval_generator
        if isinstance(generator, SceneGenerator):
            seen = cast(PromptAndCameras, trainer.datamodule)  # type: ignore[attr-defined]
            camera = turntable_cameras(self.views, seen.evaluation_elevation, azimuth=20.0)
            owner = cast(Distillation, module).distiller.teacher
            pictures, _ = particle_views(generator, owner, camera, self.resolution)
            return picture_grid(pictures.flatten(0, 1), columns=self.views)
        if isinstance(generator, ImageParticles):
            return particle_picture(generator.values.detach(), cast(Distillation, module).distiller.teacher)
        data = cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        count = data.classes if asks_for_classes(data) else None
        labels = None if count is None else torch.arange(self.samples) * count // self.samples
        teacher = module.distiller.teacher if isinstance(module, Distillation) else None
        asked = asked_texts(data, self.samples) if labels is None else classes(labels)
        return particle_picture(draw_samples(module, self.samples, asked), teacher)


def particle_picture(x: Tensor, teacher: object) -> Tensor:
    """Particles that are samples themselves: pictures as a square of tiles, points as a scatter plot.

    Args:
        x: (n, 1) or (n, 2) points, or (n, C, H, W) pictures.
        teacher: a mixture's samples are drawn beneath the points.
    """
    if x.ndim == 4:
        scale = max(1, 48 // x.shape[-1])
        enlarged = x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        return picture_grid(enlarged[:, :3] if x.shape[1] >= 3 else enlarged[:, :1], columns=round(len(x) ** 0.5))
    reference = None
    if isinstance(teacher, GaussianMixture):
        reference = teacher.sample(2000, rng=torch.Generator().manual_seed(0))[0]
    return scatter_picture(x, reference)


class Turntable(Look):
    """At the end of fit, all particles turning side by side: turntable.webp, and a strip of frames turntable.png.

    Args:
        frames: pictures of one turn, >= 1.
        resolution: height and width of each particle's picture, >= 1.
        suffixes: formats of the animation: .webp, .gif, and .mp4 with the extra `video`.
    """

    def __init__(self, frames: int = 24, resolution: int = 96, suffixes: Sequence[str] = (".webp",)) -> None:
        require(">= 1", frames=frames, resolution=resolution)
        self.frames, self.resolution, self.suffixes = frames, resolution, tuple(suffixes)

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, SceneGenerator, SCENES)
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Render one turn and write it."""
        module = cast(Distillation, pl_module)
        with module.gathered():
            if trainer.is_global_zero:
                with guarded(trainer, self):
                    self._write(cast(SceneGenerator, module.eval_generator), module.distiller.teacher, trainer)

    def _write(self, generator: SceneGenerator, teacher: Teacher, trainer: Trainer) -> None:
        data = cast(PromptAndCameras, trainer.datamodule)  # type: ignore[attr-defined]
        folder = run_folder(trainer)
        camera = turntable_cameras(self.frames, data.evaluation_elevation)
        turn, _ = particle_views(generator, teacher, camera, self.resolution)
        for suffix in self.suffixes:
            save_animation(to_bytes(side_by_side(turn)), folder / f"turntable{suffix}")
        shown = turn[:, :: max(1, self.frames // 8)]
        save_picture(picture_grid(shown.flatten(0, 1), columns=shown.shape[1]), folder / "turntable.png")


def side_by_side(turn: Tensor) -> Tensor:
    """(n, frames, 3, H, W) to frames of one row, (frames, 3, H, n W)."""
    return torch.cat(list(turn), dim=-1)


class MeshExport(Look):
    """At the end of fit, each particle's mesh as particle_i with vertex colors.

    Args:
        resolution: lattice points along each axis, >= 8; null: the generator's own choice.
        suffixes: formats: .glb, .obj, .ply, .stl.
    """

    def __init__(self, resolution: int | None = 96, suffixes: Sequence[str] = (".glb",)) -> None:
        require(">= 8", resolution=resolution)
        self.resolution, self.suffixes = resolution, tuple(suffixes)

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, SceneGenerator, SCENES)
        if cast(SceneGenerator, module.eval_generator).latents is not None:
            raise TypeError("MeshExport needs scenes of colors; these are of latents, which have no mesh: leave it out")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extract and write the meshes."""
        module = cast(Distillation, pl_module)
        with module.gathered():
            if trainer.is_global_zero:
                self._write(cast(SceneGenerator, module.eval_generator), trainer)

    def _write(self, generator: SceneGenerator, trainer: Trainer) -> None:
        folder: Path = run_folder(trainer) / "meshes"
        for i in range(generator.particles or 0):
            with guarded(trainer, self):
                mesh = generator.mesh(i, self.resolution)
                for suffix in self.suffixes:
                    mesh.save(folder / f"particle_{i}{suffix}")


def require_matplotlib() -> None:
    """Say what to install, before a run rather than after it.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("pictures of points need matplotlib: install scoredistill[plots]")


def scatter_picture(x: Tensor, reference: Tensor | None = None, size: int = 480) -> Tensor:
    """Points over samples of the distribution that they should follow.

    Args:
        x: (n, 1) or (n, 2); one dimension is drawn as a histogram.
        reference: samples of the same dimension, beneath in gray.
        size: height and width in pixels.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: for points of more than two dimensions.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if x.ndim != 2 or x.shape[1] > 2:
        raise ValueError(f"only points in one or two dimensions can be drawn, got shape {tuple(x.shape)}")
    figure = Figure(figsize=(4, 4), dpi=size // 4, layout="tight")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    for points, color, label in ((reference, "0.75", "teacher"), (x, "tab:blue", "particles")):
        if points is None:
            continue
        values = points.detach().cpu().double().numpy()
        if x.shape[1] == 1:
            axes.hist(values[:, 0], bins=60, density=True, color=color, alpha=0.7, label=label)
        else:
            axes.scatter(values[:, 0], values[:, 1], s=5, color=color, label=label, linewidths=0)
    axes.legend(loc="upper right")
    if x.shape[1] == 2:
        axes.set_aspect("equal", adjustable="datalim")
    canvas.draw()
    return torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).view(size, size, 4)[..., :3].clone()
