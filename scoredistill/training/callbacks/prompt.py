"""Whether 3D particles from text show what was asked for, how colourful they are, and how unlike one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from pytorch_lightning.utilities import rank_zero_warn

from scoredistill.evaluation.colour import mean_chroma, mean_pair_distance
from scoredistill.evaluation.recogniser import Recogniser
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.teachers.gallery import Gallery
from scoredistill.training.base import Training
from scoredistill.training.callbacks.base import Evaluation, require_part
from scoredistill.training.callbacks.views import Views, gallery_views, particle_views
from scoredistill.training.data import Conditions, PromptAndCameras
from scoredistill.training.module import Distillation


class PromptFidelity(Evaluation):
    """Looks at 3D particles of one of the Gallery's prompts from cameras that training has not seen, whichever
    teacher they come from, and at the Gallery's own variants of the prompt from the same cameras.

    recognised is the share of pictures that a `Recogniser` takes for the prompt among the candidates, and
    recognised/particle_i each particle's; recogniser_accuracy and recogniser_accuracy_spoilt are its own, on unseen
    pictures of the Gallery. chroma is the mean chroma C* of CIELAB over foreground pixels, foreground the share of
    these. diversity is the mean root-mean-square distance of two particles' pictures from one camera, in units of
    [-1, 1], and diversity_features that of the recogniser's features. NAME_gallery is the Gallery's figure, whose
    variants are equally likely. There is no diversity of one particle, and no chroma of nothing.

    Args:
        candidates: prompts that the recogniser tells apart, at least two, the run's prompt among them.
        resolution: height and width of the pictures, >= 1.
        cache: folder in which trained recognisers are kept.
    """

    def __init__(self, candidates: Sequence[str], resolution: int = 64, cache: str = "runs/recognisers") -> None:
        require(">= 1", resolution=resolution)
        if isinstance(candidates, str) or len(candidates) < 2:
            raise ValueError(f"candidates: need a list of two prompts or more, got {candidates!r}")
        self.candidates, self.resolution, self.cache = tuple(candidates), resolution, cache
        self._recogniser: Recogniser | None = None

    def check(self, module: Training, data: Conditions) -> None:
        require_part(self, module.evaluated, SceneGenerator, "a generator of 3D scenes (NeRF, DMTet)")
        require_part(self, data, PromptAndCameras, "PromptAndCameras data")
        text = cast(PromptAndCameras, data).text
        if text not in self.candidates:
            raise ValueError(f"PromptFidelity: add the prompt {text!r} to candidates: {', '.join(self.candidates)}")
        Gallery().check(self.candidates)

    def evaluate(self, module: Distillation, data: Conditions, final: bool) -> dict[str, float]:
        self.check(module, data)
        generator, data = cast(SceneGenerator, module.evaluated), cast(PromptAndCameras, data)
        camera = data.evaluation_cameras()
        background = torch.tensor(Gallery().settings.background)
        ours = particle_views(generator, module.distiller.teacher, camera, self.resolution, background)
        true = gallery_views(data.text, camera, self.resolution)
        recogniser = self._fitted()
        right = recogniser.recognise(ours[0].flatten(0, 1)) == self.candidates.index(data.text)
        shares = right.unflatten(0, ours[0].shape[:2]).double().mean(1)
        figures = {f"recognised/particle_{i}": float(share) for i, share in enumerate(shares)}
        figures |= {"recognised": float(shares.mean()), "recogniser_accuracy": recogniser.accuracy}
        figures["recogniser_accuracy_spoilt"] = recogniser.accuracy_spoilt
        figures |= appearance(ours, recogniser)
        return figures | {f"{name}_gallery": value for name, value in appearance(true, recogniser).items()}

    def _fitted(self) -> Recogniser:
        if self._recogniser is None:
            self._recogniser = Recogniser.cached(self.cache, self.candidates)
        return self._recogniser


def appearance(views: Views, recogniser: Recogniser) -> dict[str, float]:
    """Chroma, foreground and diversities, as `PromptFidelity` names them; those that there are not are left out.

    Args:
        views: of n things.
        recogniser: whose features are compared.
    """
    pictures, opacity = views
    features = recogniser.features(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    found = {
        "chroma": mean_chroma(pictures, opacity),
        "foreground": (opacity > 0.5).double().mean(),
        "diversity": mean_pair_distance(pictures),
        "diversity_features": mean_pair_distance(features),
    }
    if found["chroma"] is None:
        rank_zero_warn("chroma is left out: the particles are empty, no pixel's opacity is above one half")
    return {name: float(value) for name, value in found.items() if value is not None}
