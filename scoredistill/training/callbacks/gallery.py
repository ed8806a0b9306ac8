"""Fidelity of 3D particles to the gallery's scenes, and coverage of their variants."""

from __future__ import annotations

from typing import cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import NoSurfaceError, chamfer
from scoredistill.teachers.gallery import Gallery
from scoredistill.training.callbacks.evaluation import Evaluation, require_part
from scoredistill.training.data import ConditionDataModule, PromptAndCameras
from scoredistill.training.distillation import Distillation
from scoredistill.training.training_module import TrainingModule


def psnr_to_variants(
    generator: SceneGenerator, teacher: Gallery, prompt: str, camera: Camera, resolution: int
) -> Tensor:
    """Peak signal-to-noise ratio of every particle against every variant, over all cameras together.

        10 log10(1 / mean (u - v)^2),    u and v display values in [0, 1], on the gallery's background

    Returns:
        (n, K) decibels.
    """
    background = torch.tensor(teacher.settings.background).expand(len(camera), 3)
    ours = generator.render(camera, resolution, resolution, background=background).rgb.cpu()
    true = teacher.renders(prompt, camera, resolution, resolution, background).rgb.cpu()
    squared = [((ours - true[:, k]) ** 2 / 4).mean(dim=(1, 2, 3, 4)) for k in range(true.shape[1])]
    return -10 * torch.stack(squared, dim=1).log10()


class GalleryFidelity(Evaluation):
    """Compares each 3D particle with the gallery's ground truth, from cameras that are not used in training.

    psnr/particle_i is the PSNR to the nearest variant, the variant with the highest PSNR; variants_covered is the
    number of variants that are nearest to some particle. chamfer/particle_i, computed in final evaluations, is the mean
    distance between the surfaces of the particle's mesh and that variant's mesh, averaged over both directions, in
    world units; chamfer_of_diagonal/particle_i is its ratio to the diagonal of the variant's bounding box. A particle
    without a surface has neither.

    Args:
        resolution: height and width of the compared pictures, >= 1.
        mesh_resolution: lattice points along each axis of both meshes, >= 0 and not 1 to 7; None: the generator's
            default, and 96 for the gallery; 0: no meshes.
    """

    def __init__(self, resolution: int = 64, mesh_resolution: int | None = 96) -> None:
        require(">= 1", resolution=resolution)
        require(">= 0", mesh_resolution=mesh_resolution)
        if mesh_resolution is not None and 0 < mesh_resolution < 8:
            raise ValueError(f"mesh_resolution must be at least 8, or 0 for no meshes, got {mesh_resolution}")
        self.resolution = resolution
        self.mesh_resolution = mesh_resolution

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(
            self, module.eval_generator, SceneGenerator, "a generator of 3D scenes (a SceneGenerator: NeRF, DMTet)"
        )
        teacher = cast(Distillation, module).distiller.teacher
        require_part(self, teacher, Gallery, "the Gallery teacher (PromptFidelity evaluates scenes from any teacher)")
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator = cast(SceneGenerator, module.eval_generator)
        teacher = cast(Gallery, module.distiller.teacher)
        data = cast(PromptAndCameras, data)
        psnr, nearest = psnr_to_variants(generator, teacher, data.text, data.evaluation_cameras(), self.resolution).max(
            dim=1
        )
        metrics = {f"psnr/particle_{i}": float(value) for i, value in enumerate(psnr)}
        metrics |= {f"variant/particle_{i}": float(k) for i, k in enumerate(nearest)}
        metrics |= {"psnr/mean": float(psnr.mean()), "variants_covered": float(len(nearest.unique()))}
        if final and self.mesh_resolution != 0:
            for i, k in enumerate(nearest.tolist()):
                metrics |= self._chamfer(generator, i, teacher, data.text, k)
        return metrics

    def _chamfer(
        self, generator: SceneGenerator, particle: int, teacher: Gallery, prompt: str, variant: int
    ) -> dict[str, float]:
        """Mesh metrics of a particle; none with a warning if it is empty, which must not cost the other metrics."""
        try:
            ours = generator.mesh(particle, self.mesh_resolution)
        except NoSurfaceError as error:
            rank_zero_warn(f"chamfer/particle_{particle} is left out: {error}")
            return {}
        true = teacher.mesh(prompt, variant, self.mesh_resolution or 96)
        distance = chamfer(ours, true)
        diagonal = float((true.vertices.amax(0) - true.vertices.amin(0)).norm())
        return {
            f"chamfer/particle_{particle}": distance,
            f"chamfer_of_diagonal/particle_{particle}": distance / diagonal,
        }
