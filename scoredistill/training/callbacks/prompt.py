"""Fidelity of scenes and samples to their prompts."""

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
from scoredistill.rendering.turntable import picture_grid, save_picture
from scoredistill.teachers.gallery import Gallery
from scoredistill.training.callbacks.evaluation import Evaluation, Interval, guarded, require_part, run_folder
from scoredistill.training.callbacks.quality import draw_samples, require_samples
from scoredistill.training.callbacks.views import Views, gallery_views, particle_views
from scoredistill.training.data import ConditionDataModule, PromptAndCameras
from scoredistill.training.distillation import Distillation
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Condition


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
