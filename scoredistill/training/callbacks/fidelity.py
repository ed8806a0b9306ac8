"""Fidelity of 3D particles to the Gallery's scenes, of samples to their prompts, and of an autoencoder to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from scoredistill.evaluation.color import mean_chroma, mean_pair_distance
from scoredistill.evaluation.prompt_classifier import PromptClassifier
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import NoSurfaceError, chamfer
from scoredistill.rendering.turntable import picture_grid, save_picture
from scoredistill.teachers.gallery import Gallery
from scoredistill.training.autoencoder import AutoencoderTraining
from scoredistill.training.callbacks.evaluation import Evaluation, Interval, guarded, require_part, run_folder
from scoredistill.training.callbacks.pictures import Views, gallery_views, particle_views
from scoredistill.training.callbacks.quality import draw_samples, require_samples
from scoredistill.training.conditions import ConditionDataModule, PromptAndCameras
from scoredistill.training.distillation import Distillation
from scoredistill.training.images import Images
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition


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


class PromptFidelity(Evaluation):
    """Evaluates 3D particles of one of the Gallery's prompts, from cameras that are not used in training.

    The particles may come from any teacher. recognized is the share of pictures that a `PromptClassifier` assigns to
    the prompt among the candidates, and recognized/particle_i that of each particle; recognizer_accuracy and
    recognizer_accuracy_corrupted are the classifier's accuracies on unseen pictures of the Gallery. chroma is the mean
    chroma C* of CIELAB over foreground pixels, and foreground the share of these pixels. diversity is the mean
    root-mean-square distance of two particles' pictures from one camera, in units of [-1, 1], and diversity_features
    that of the classifier's features. NAME_gallery is the same metric of the Gallery's variants of the prompt from the
    same cameras, with equal weights. A single particle has no diversity, and empty pictures have no chroma.

    Args:
        candidates: prompts that the classifier distinguishes, at least two, including the run's prompt.
        resolution: height and width of the pictures, >= 1.
        cache: folder of trained classifiers.
    """

    def __init__(self, candidates: Sequence[str], resolution: int = 64, cache: str = "runs/recognizers") -> None:
        require(">= 1", resolution=resolution)
        if isinstance(candidates, str) or len(candidates) < 2:
            raise ValueError(f"candidates: expected a list of two or more prompts, got {candidates!r}")
        self.candidates = tuple(candidates)
        self.resolution = resolution
        self.cache = cache
        self._recognizer: PromptClassifier | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(
            self, module.eval_generator, SceneGenerator, "a generator of 3D scenes (a SceneGenerator: NeRF, DMTet)"
        )
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")
        text = cast(PromptAndCameras, data).text
        if text not in self.candidates:
            raise ValueError(f"PromptFidelity: add the prompt {text!r} to candidates: {', '.join(self.candidates)}")
        Gallery().check(self.candidates)

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator = cast(SceneGenerator, module.eval_generator)
        data = cast(PromptAndCameras, data)
        camera = data.evaluation_cameras()
        background = torch.tensor(Gallery().settings.background)
        ours = particle_views(generator, module.distiller.teacher, camera, self.resolution, background)
        true = gallery_views(data.text, camera, self.resolution)
        classifier = self._fitted()
        correct = classifier.recognize(ours[0].flatten(0, 1)) == self.candidates.index(data.text)
        shares = correct.unflatten(0, ours[0].shape[:2]).double().mean(1)
        metrics = {f"recognized/particle_{i}": float(share) for i, share in enumerate(shares)}
        metrics |= {"recognized": float(shares.mean()), "recognizer_accuracy": classifier.accuracy}
        metrics["recognizer_accuracy_corrupted"] = classifier.accuracy_corrupted
        metrics |= appearance(ours, classifier)
        return metrics | {f"{name}_gallery": value for name, value in appearance(true, classifier).items()}

    def _fitted(self) -> PromptClassifier:
        if self._recognizer is None:
            self._recognizer = PromptClassifier.cached(self.cache, self.candidates)
        return self._recognizer


def appearance(views: Views, classifier: PromptClassifier) -> dict[str, float]:
    """Chroma, foreground and diversities, see `PromptFidelity`; undefined ones are left out.

    Args:
        views: views of n particles or variants.
        classifier: its features are compared.
    """
    pictures, opacity = views
    features = classifier.features(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    metrics = {
        "chroma": mean_chroma(pictures, opacity),
        "foreground": (opacity > 0.5).double().mean(),
        "diversity": mean_pair_distance(pictures),
        "diversity_features": mean_pair_distance(features),
    }
    if metrics["chroma"] is None:
        rank_zero_warn("chroma is left out: the particles are empty, no pixel has an opacity above one half")
    return {name: float(value) for name, value in metrics.items() if value is not None}


class PromptSamples(Evaluation):
    """Draws samples of the Gallery's prompts, one row per prompt, as pictures/step_N.png and at the end as grid.png.

    recognized is the share of samples that a `PromptClassifier` assigns to their prompt, and recognizer_accuracy the
    classifier's accuracy on unseen pictures of the Gallery.

    Args:
        prompts: prompts that are drawn and distinguished, at least two.
        samples: number of samples per prompt, >= 1.
        every: steps between pictures, >= 0; 0: only the final picture.
        cache: folder of trained classifiers.
    """

    def __init__(
        self, prompts: Sequence[str], samples: int = 8, every: int = 0, cache: str = "runs/recognizers"
    ) -> None:
        require(">= 1", samples=samples)
        require(">= 0", every=every)
        if isinstance(prompts, str) or len(prompts) < 2:
            raise ValueError(f"prompts: expected a list of two or more, got {prompts!r}")
        self.prompts = tuple(prompts)
        self.samples = samples
        self.interval = Interval(every)
        self.cache = cache
        self._final: Tensor | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_samples(self, module)
        Gallery().check(self.prompts)

    def evaluate(self, module: TrainingModule, data: ConditionDataModule, final: bool) -> dict[str, float]:
        classifier = PromptClassifier.cached(self.cache, self.prompts)
        target = torch.arange(len(self.prompts)).repeat_interleave(self.samples)
        self._final = self.draw(module)
        correct = classifier.recognize(self._final) == target
        return {"recognized": float(correct.double().mean()), "recognizer_accuracy": classifier.accuracy}

    def draw(self, module: TrainingModule) -> Tensor:
        """Draw the samples, (P * samples, 3, H, W), prompt by prompt."""
        texts = tuple(prompt for prompt in self.prompts for _ in range(self.samples))
        return draw_samples(module, len(texts), Condition(texts), batch=64)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw at intervals of steps."""
        if self.interval.due(trainer):
            self._save(
                self.draw(cast(TrainingModule, pl_module)), trainer, f"pictures/step_{trainer.global_step:06d}.png"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metrics and draw the final picture."""
        super().on_fit_end(trainer, pl_module)
        if self._final is not None:
            with guarded(trainer, self):
                self._save(self._final, trainer, "grid.png")

    def _save(self, pictures: Tensor, trainer: Trainer, name: str) -> None:
        if trainer.is_global_zero:
            save_picture(picture_grid(pictures, columns=self.samples), run_folder(trainer) / name)


class ReconstructionQuality(Evaluation):
    """Reconstructs real pictures, and draws some of them beneath the originals: reconstructions.png.

    psnr is 10 log10(1 / mean (u - v)^2) of display values in [0, 1] over all pictures; psnr_worst is the lowest PSNR of
    a single picture.

    Args:
        samples: number of pictures, the first of the reference, >= 1.
        shown: number of drawn pictures, >= 1.
    """

    def __init__(self, samples: int = 256, shown: int = 12) -> None:
        require(">= 1", samples=samples, shown=shown)
        self.samples = samples
        self.shown = shown

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module, AutoencoderTraining, "task: autoencoder")
        require_part(self, data, Images, "Images as data")

    def evaluate(self, module: TrainingModule, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        real, reconstructed = self._pairs(module, data, self.samples)
        error = (real - reconstructed).square().flatten(1).mean(1) / 4
        psnr = -10 * torch.stack([error.mean(), error.max()]).log10()
        return {"psnr": float(psnr[0]), "psnr_worst": float(psnr[1])}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metrics and draw the picture."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            with guarded(trainer, self):
                data = cast(ConditionDataModule, trainer.datamodule)  # type: ignore[attr-defined]
                rows = torch.cat(self._pairs(cast(TrainingModule, pl_module), data, self.shown))
                save_picture(picture_grid(rows, columns=len(rows) // 2), run_folder(trainer) / "reconstructions.png")

    def _pairs(self, module: TrainingModule, data: ConditionDataModule, count: int) -> tuple[Tensor, Tensor]:
        """Real pictures and their reconstructions, on the CPU."""
        real = cast(Images, data).reference()[0][:count]
        parts = [module.eval_generator(Batch(data=part.to(module.device))).x.cpu() for part in real.split(64)]
        return real, torch.cat(parts)
