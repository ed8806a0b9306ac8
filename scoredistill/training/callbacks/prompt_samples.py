"""What a text-to-image model makes of given prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from scoredistill.evaluation.recogniser import Recogniser
from scoredistill.ranges import require
from scoredistill.rendering.turntable import picture_grid, save_picture
from scoredistill.teachers.gallery import Gallery
from scoredistill.training.base import Training
from scoredistill.training.callbacks.base import Evaluation, Interval, isolated, run_folder
from scoredistill.training.callbacks.quality import draw_samples, require_samples
from scoredistill.training.data import Conditions
from scoredistill.types import Condition


class PromptSamples(Evaluation):
    """Samples of the Gallery's prompts, a row each, as pictures/step_N.png while training and grid.png at the end.

    recognised is the share of samples that a `Recogniser` takes for their prompt among all of them, and
    recogniser_accuracy its own on unseen pictures of the Gallery.

    Args:
        prompts: that are shown and told apart, at least two.
        samples: of each prompt, >= 1.
        every: steps between pictures, >= 0; 0: only the last one.
        cache: folder in which trained recognisers are kept.
    """

    def __init__(
        self, prompts: Sequence[str], samples: int = 8, every: int = 0, cache: str = "runs/recognisers"
    ) -> None:
        require(">= 1", samples=samples)
        require(">= 0", every=every)
        if isinstance(prompts, str) or len(prompts) < 2:
            raise ValueError(f"prompts: need a list of two or more, got {prompts!r}")
        self.prompts, self.samples, self.interval, self.cache = tuple(prompts), samples, Interval(every), cache
        self._seen: Tensor | None = None

    def check(self, module: Training, data: Conditions) -> None:
        require_samples(self, module)
        Gallery().check(self.prompts)

    def evaluate(self, module: Training, data: Conditions, final: bool) -> dict[str, float]:
        recogniser = Recogniser.cached(self.cache, self.prompts)
        asked = torch.arange(len(self.prompts)).repeat_interleave(self.samples)
        self._seen = self.draw(module)
        right = recogniser.recognise(self._seen) == asked
        return {"recognised": float(right.double().mean()), "recogniser_accuracy": recogniser.accuracy}

    def draw(self, module: Training) -> Tensor:
        """The samples, (P * samples, 3, H, W), prompt by prompt."""
        texts = tuple(prompt for prompt in self.prompts for _ in range(self.samples))
        return draw_samples(module, len(texts), Condition(texts), batch=64)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw, at intervals of steps."""
        if self.interval.due(trainer):
            self._save(self.draw(cast(Training, pl_module)), trainer, f"pictures/step_{trainer.global_step:06d}.png")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Figures and the last picture."""
        super().on_fit_end(trainer, pl_module)
        if self._seen is not None:
            with isolated(trainer, self):
                self._save(self._seen, trainer, "grid.png")

    def _save(self, pictures: Tensor, trainer: Trainer, name: str) -> None:
        if trainer.is_global_zero:
            save_picture(picture_grid(pictures, columns=self.samples), run_folder(trainer) / name)
