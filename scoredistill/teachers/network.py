"""A trained network as the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import EDMSchedule, Schedule
from scoredistill.networks.backbone import NO_LABEL, Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.storage import DESCRIPTION, find_trained, load_denoiser
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition
from scoredistill.types.condition import cat_values


class NetworkTeacher(Teacher):
    """A trained network as the model of p. It is class-conditional if its backbone is.

    All conditions that guidance needs at one x_t are evaluated in one call of the network.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        network: the backbone; None: it is loaded from `folder`.
        folder: a denoiser's folder, or the output folder of the recipe that trains it, whose newest finished run is
            used.
        trained_by: the recipe that trains the network; `scoredistill fit` runs it first if `folder` has no network.
        prediction: edm, or what the backbone outputs; a folder stores its own value.
        sigma_data: the data's standard deviation, for edm only, > 0; a folder stores its own value.
        schedule: noise schedule; None: EDM's.

    Raises:
        ValueError: if not exactly one of network and folder is set, or the folder contains no network.
    """

    def __init__(
        self,
        network: Backbone | None = None,
        folder: str | None = None,
        trained_by: str | None = None,
        prediction: Parameterization = "edm",
        sigma_data: float = 0.5,
        schedule: Schedule | None = None,
    ) -> None:
        require("> 0", sigma_data=sigma_data)
        super().__init__(schedule or EDMSchedule())
        if (network is None) == (folder is None):
            raise ValueError("NetworkTeacher needs either network or folder, and not both")
        if network is not None:
            self.denoiser = Denoiser(network, prediction, sigma_data)
            return
        trained = find_trained(str(folder), "teacher", DESCRIPTION)
        if trained is None:
            remedy = f"train it: scoredistill fit --config {trained_by}" if trained_by else "train one first"
            raise ValueError(f"there is no trained teacher in {folder}: {remedy}")
        self.denoiser = load_denoiser(trained)

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x_t, t, condition, self.schedule)

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        n = len(conditions)
        if n == 1:
            return [self(x_t, t, conditions[0])]
        rows = x_t.repeat(n, *(1,) * (x_t.ndim - 1))
        prediction = self(rows, t.repeat(n), cat_common(conditions, len(x_t)))
        return [Prediction.of(prediction.kind, value, x_t, t, self.schedule) for value in prediction.value.chunk(n)]

    def denoiser_for(self, user: str) -> Denoiser:
        return self.denoiser


def cat_common(conditions: Sequence[Condition | None], rows: int) -> Condition | None:
    """Concatenate the rows of conditions with different fields, for one call of a network.

    The result has the fields that all of them have, and labels if any of them has labels, with `NO_LABEL` in the rows
    of the others. Other fields that only some of them have are left out, so that a network that needs them raises.

    Args:
        conditions: conditions of B rows each, or with a single prompt; None: unconditional.
        rows: B.
    """
    parts = [Condition() if condition is None else condition for condition in conditions]
    values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Condition)}
    labels = [label for label in values["label"] if label is not None]
    if labels:
        no_label = torch.full_like(labels[0], NO_LABEL)
        values["label"] = [no_label if label is None else label for label in values["label"]]
    for name in ("prompt", "negative_prompt"):
        values[name] = [(text,) * rows if isinstance(text, str) else text for text in values[name]]
    common = {name: cat_values(parts) for name, parts in values.items() if all(part is not None for part in parts)}
    return Condition(**common) if common else None
