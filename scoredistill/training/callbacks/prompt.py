"""Whether scenes and samples show their prompts."""

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
from scoredistill.training.module import Distillation
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Condition


class PromptFidelity(Evaluation):
    """Looks at 3D particles of one of the Gallery's prompts from cameras that training has not seen, whichever
    teacher they come from, and at the Gallery's own variants of the prompt from the same cameras.

    recognized is the share of pictures that a `PromptClassifier` takes for the prompt among the candidates, and
    recognized/particle_i each particle's; recognizer_accuracy and recognizer_accuracy_spoilt are its own, on unseen
    pictures of the Gallery. chroma is the mean chroma C* of CIELAB over foreground pixels, foreground the share of
    these. diversity is the mean root-mean-square distance of two particles' pictures from one camera, in units of
    [-1, 1], and diversity_features that of the classifier's features. NAME_gallery is the Gallery's figure, whose
    variants are equally likely. There is no diversity of one particle, and no chroma of nothing.

    Args:
        candidates: prompts that the classifier tells apart, at least two, the run's prompt among them.
        resolution: height and width of the pictures, >= 1.
        cache: folder in which trained recognizers are kept.
    """

    def __init__(self, candidates: Sequence[str], resolution: int = 64, cache: str = "runs/recognizers") -> None:
        require(">= 1", resolution=resolution)
        if isinstance(candidates, str) or len(candidates) < 2:
            raise ValueError(f"candidates: need a list of two prompts or more, got {candidates!r}")
        self.candidates, self.resolution, self.cache = tuple(candidates), resolution, cache
        self._recognizer: PromptClassifier | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_part(self, module.eval_generator, SceneGenerator, "a generator of 3D scenes (NeRF, DMTet)")
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")
        text = cast(PromptAndCameras, data).text
        if text not in self.candidates:
            raise ValueError(f"PromptFidelity: add the prompt {text!r} to candidates: {', '.join(self.candidates)}")
        Gallery().check(self.candidates)

    def evaluate(self, module: Distillation, data: ConditionDataModule, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator, data = cast(SceneGenerator, module.eval_generator), cast(PromptAndCameras, data)
        camera = data.evaluation_cameras()
        background = torch.tensor(Gallery().settings.background)
        ours = particle_views(generator, module.distiller.teacher, camera, self.resolution, background)
        true = gallery_views(data.text, camera, self.resolution)
        classifier = self._fitted()
        right = classifier.recognize(ours[0].flatten(0, 1)) == self.candidates.index(data.text)
        shares = right.unflatten(0, ours[0].shape[:2]).double().mean(1)
        metrics = {f"recognized/particle_{i}": float(share) for i, share in enumerate(shares)}
        metrics |= {"recognized": float(shares.mean()), "recognizer_accuracy": classifier.accuracy}
        metrics["recognizer_accuracy_spoilt"] = classifier.accuracy_spoilt
        metrics |= appearance(ours, classifier)
        return metrics | {f"{name}_gallery": value for name, value in appearance(true, classifier).items()}

    def _fitted(self) -> PromptClassifier:
        if self._recognizer is None:
            self._recognizer = PromptClassifier.cached(self.cache, self.candidates)
        return self._recognizer


def appearance(views: Views, classifier: PromptClassifier) -> dict[str, float]:
    """Chroma, foreground and diversities, as `PromptFidelity` names them; those that there are not are left out.

    Args:
        views: of n things.
        classifier: whose features are compared.
    """
    pictures, opacity = views
    features = classifier.features(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    found = {
        "chroma": mean_chroma(pictures, opacity),
        "foreground": (opacity > 0.5).double().mean(),
        "diversity": mean_pair_distance(pictures),
        "diversity_features": mean_pair_distance(features),
    }
    if found["chroma"] is None:
        rank_zero_warn("chroma is left out: the particles are empty, no pixel's opacity is above one half")
    return {name: float(value) for name, value in found.items() if value is not None}


class PromptSamples(Evaluation):
    """Samples of the Gallery's prompts, a row each, as pictures/step_N.png while training and grid.png at the end.

    recognized is the share of samples that a `PromptClassifier` takes for their prompt among all of them, and
    recognizer_accuracy its own on unseen pictures of the Gallery.

    Args:
        prompts: that are shown and told apart, at least two.
        samples: of each prompt, >= 1.
        every: steps between pictures, >= 0; 0: only the last one.
        cache: folder in which trained recognizers are kept.
    """

    def __init__(
        self, prompts: Sequence[str], samples: int = 8, every: int = 0, cache: str = "runs/recognizers"
    ) -> None:
        require(">= 1", samples=samples)
        require(">= 0", every=every)
        if isinstance(prompts, str) or len(prompts) < 2:
            raise ValueError(f"prompts: need a list of two or more, got {prompts!r}")
        self.prompts, self.samples, self.interval, self.cache = tuple(prompts), samples, Interval(every), cache
        self._seen: Tensor | None = None

    def check(self, module: TrainingModule, data: ConditionDataModule) -> None:
        require_samples(self, module)
        Gallery().check(self.prompts)

    def evaluate(self, module: TrainingModule, data: ConditionDataModule, final: bool) -> dict[str, float]:
        classifier = PromptClassifier.cached(self.cache, self.prompts)
        asked = torch.arange(len(self.prompts)).repeat_interleave(self.samples)
        self._seen = self.draw(module)
        right = classifier.recognize(self._seen) == asked
        return {"recognized": float(right.double().mean()), "recognizer_accuracy": classifier.accuracy}

    def draw(self, module: TrainingModule) -> Tensor:
        """The samples, (P * samples, 3, H, W), prompt by prompt."""
        texts = tuple(prompt for prompt in self.prompts for _ in range(self.samples))
        return draw_samples(module, len(texts), Condition(texts), batch=64)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw, at intervals of steps."""
        if self.interval.due(trainer):
            self._save(
                self.draw(cast(TrainingModule, pl_module)), trainer, f"pictures/step_{trainer.global_step:06d}.png"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Metrics and the last picture."""
        super().on_fit_end(trainer, pl_module)
        if self._seen is not None:
            with guarded(trainer, self):
                self._save(self._seen, trainer, "grid.png")

    def _save(self, pictures: Tensor, trainer: Trainer, name: str) -> None:
        if trainer.is_global_zero:
            save_picture(picture_grid(pictures, columns=self.samples), run_folder(trainer) / name)
