"""Pictures and meshes of the evaluated generator: grids, scatter plots, turntables."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import interpolate

from scoredistill.generators.image import ImageParticles
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.turntable import (
    picture_grid,
    save_animation,
    save_picture,
    to_bytes,
    turntable_cameras,
)
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.gallery import Gallery
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.callbacks.evaluation import GeneratorCallback, Interval, guarded, require_part, run_folder
from scoredistill.training.callbacks.quality import (
    class_condition,
    draw_samples,
    evaluation_prompts,
    has_class_condition,
)
from scoredistill.training.conditions import ConditionDataModule, PromptAndCameras
from scoredistill.training.distillation import Distillation
from scoredistill.training.training_module import TrainingModule

Views = tuple[Tensor, Tensor]
"""Pictures (n, V, 3, H, W) in [-1, 1] and opacities (n, V, H, W) of n scenes from V cameras, on the CPU."""


def particle_views(
    generator: SceneGenerator, teacher: Teacher, camera: Camera, resolution: int, background: Tensor | None = None
) -> Views:
    """Render every particle from every camera. Latent scenes are rendered as in training and decoded by the teacher.

    Args:
        generator: n particles.
        teacher: the teacher of the particles.
        camera: V views.
        resolution: height and width of the pictures.
        background: (3,) color in [-1, 1]; None, and for latent scenes: the generator's background.
    """
    if generator.latents is None:
        render = generator.render(camera, resolution, resolution, background)
        return render.rgb.cpu(), render.opacity.cpu()
    render = generator.render(camera, generator.resolution, generator.resolution)
    with torch.no_grad():
        decoded = torch.cat([teacher.decode(row) for row in render.rgb.flatten(0, 1).split(1)])
    side = (resolution, resolution)
    pictures = interpolate(decoded, side, mode="bilinear", antialias=True).clamp(-1, 1)
    opacity = interpolate(render.opacity, side, mode="bilinear")
    return pictures.unflatten(0, render.opacity.shape[:2]).cpu(), opacity.cpu()


def gallery_views(prompt: str, camera: Camera, resolution: int) -> Views:
    """Render the Gallery's variants of a prompt from V cameras, in the layout of particles."""
    render = Gallery().renders(prompt, camera, resolution, resolution)
    return render.rgb.transpose(0, 1), render.opacity[:, :, 0].transpose(0, 1)


SCENES = "a generator of 3D scenes (a SceneGenerator: NeRF, DMTet; ParticleGrid supports others)"


class ParticleGrid(GeneratorCallback):
    """Draws all particles, every `every` steps as pictures/step_N.png and at the end as grid.png.

    3D particles are rows and cameras are columns; pictures are tiled; points are drawn over the teacher's samples. For
    a generator from noise, samples of fixed noise are drawn: sorted by class if training is conditioned on classes,
    otherwise for the evaluation prompts if any.

    Args:
        every: generator steps between pictures, >= 0; 0: only the final picture.
        resolution: height and width of a 3D particle's pictures, >= 1.
        views: number of cameras for 3D particles, >= 1.
        samples: number of samples of a generator from noise, >= 1.
    """

    def __init__(self, every: int = 100, resolution: int = 96, views: int = 6, samples: int = 100) -> None:
        require(">= 0", every=every)
        require(">= 1", resolution=resolution, views=views, samples=samples)
        self.interval = Interval(every)
        self.resolution = resolution
        self.views = views
        self.samples = samples

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        generator = module.eval_generator
        if isinstance(generator, SceneGenerator):
            require_part(self, data, PromptAndCameras, "PromptAndCameras data for 3D scenes")
            return
        if generator.particles is not None:
            require_part(
                self, generator, ImageParticles, "3D scenes (a SceneGenerator), ImageParticles or samples from noise"
            )
        one = generator.values[0].shape if isinstance(generator, ImageParticles) else getattr(generator, "shape", ())
        shape: tuple[int, ...] = tuple(one)
        if len(shape) == 1:
            require_matplotlib()
            if shape[0] > 2:
                raise TypeError(f"ParticleGrid draws points in one or two dimensions and pictures, got {shape}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw at intervals of generator steps."""
        if self.interval.due(trainer):
            self._draw(trainer, pl_module, f"pictures/step_{trainer.global_step:06d}.png")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the final picture."""
        with guarded(trainer, self):
            self._draw(trainer, pl_module, "grid.png")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        """Draw on all processes, because a network may be sharded over them; the first one writes."""
        with cast(TrainingModule, pl_module).gathered() as evaluates:
            picture = self.draw(pl_module, trainer) if evaluates else None
        if picture is not None and trainer.is_global_zero:
            save_picture(picture, run_folder(trainer) / name)

    def draw(self, pl_module: LightningModule, trainer: Trainer) -> Tensor:
        """The picture, (H, W, 3) uint8."""
        module = cast(TrainingModule, pl_module)
        generator = module.eval_generator
        if isinstance(generator, SceneGenerator):
            cameras = cast(PromptAndCameras, trainer.datamodule)  # type: ignore[attr-defined]
            camera = turntable_cameras(self.views, cameras.evaluation_elevation, azimuth=20.0)
            pictures, _ = particle_views(
                generator, cast(Distillation, module).distiller.teacher, camera, self.resolution
            )
            return picture_grid(pictures.flatten(0, 1), columns=self.views)
        if isinstance(generator, ImageParticles):
            return particle_picture(generator.values.detach(), cast(Distillation, module).distiller.teacher)
        data = cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        count = data.classes if has_class_condition(data) else None
        labels = None if count is None else torch.arange(self.samples) * count // self.samples
        teacher = module.distiller.teacher if isinstance(module, Distillation) else None
        condition = evaluation_prompts(data, self.samples) if labels is None else class_condition(labels)
        return particle_picture(draw_samples(module, self.samples, condition), teacher)


def particle_picture(x: Tensor, teacher: object) -> Tensor:
    """Draw samples: pictures as a square of tiles, points as a scatter plot.

    Args:
        x: (n, 1) or (n, 2) points, or (n, C, H, W) pictures.
        teacher: if it is a mixture, its samples are drawn beneath the points.
    """
    if x.ndim == 4:
        scale = max(1, 48 // x.shape[-1])
        enlarged = x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        return picture_grid(enlarged[:, :3] if x.shape[1] >= 3 else enlarged[:, :1], columns=round(len(x) ** 0.5))
    reference = None
    if isinstance(teacher, GaussianMixture):
        reference = teacher.sample(2000, rng=torch.Generator().manual_seed(0))[0]
    return scatter_picture(x, reference)


class Turntable(GeneratorCallback):
    """Renders all rotating particles side by side at the end of fit: turntable.webp, and some frames as turntable.png.

    Args:
        frames: number of frames of one turn, >= 1.
        resolution: height and width of each particle's picture, >= 1.
        suffixes: formats of the animation: .webp, .gif, and .mp4 with the extra `video`.
    """

    def __init__(self, frames: int = 24, resolution: int = 96, suffixes: Sequence[str] = (".webp",)) -> None:
        require(">= 1", frames=frames, resolution=resolution)
        self.frames = frames
        self.resolution = resolution
        self.suffixes = tuple(suffixes)

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, SceneGenerator, SCENES)
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Render and write one turn."""
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
    """Arrange particles (n, frames, 3, H, W) in one row per frame, (frames, 3, H, n W)."""
    return torch.cat(list(turn), dim=-1)


class MeshExport(GeneratorCallback):
    """Writes each particle's mesh with vertex colors as meshes/particle_i at the end of fit.

    Args:
        resolution: lattice points along each axis, >= 8; None: the generator's default.
        suffixes: formats: .glb, .obj, .ply, .stl.
    """

    def __init__(self, resolution: int | None = 96, suffixes: Sequence[str] = (".glb",)) -> None:
        require(">= 8", resolution=resolution)
        self.resolution = resolution
        self.suffixes = tuple(suffixes)

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, SceneGenerator, SCENES)
        if cast(SceneGenerator, module.eval_generator).latents is not None:
            raise TypeError("MeshExport needs scenes of colors; latent scenes have no mesh: remove the callback")

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
    """Check that matplotlib is installed, before a run instead of after it.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("pictures of points need matplotlib: install scoredistill[plots]")


def scatter_picture(x: Tensor, reference: Tensor | None = None, size: int = 480) -> Tensor:
    """Draw points over samples of the target distribution.

    Args:
        x: (n, 1) or (n, 2); one dimension is drawn as a histogram.
        reference: samples of the target distribution, drawn beneath in gray.
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
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
