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
from scoredistill.types.condition import joined


class NetworkTeacher(Teacher):
    """A preconditioned network as the model of p; class-conditional where its backbone is.

    Whatever guidance asks of one x_t is one call of the network.

    Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.

    Args:
        network: the backbone; null: `folder` has it.
        folder: a denoiser's folder, or the output of the recipe that trains it, whose newest finished run counts.
        trained_by: the recipe that trains it; `scoredistill fit` runs it first where `folder` holds none yet.
        prediction: edm, or what the backbone outputs; a folder knows its own.
        sigma_data: the data's standard deviation, for edm only, > 0; a folder knows its own.
        schedule: noise schedule; null: EDM's.

    Raises:
        ValueError: if not exactly one of network and folder is given, or the folder holds no network.
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
            raise ValueError("NetworkTeacher needs either a network or the folder of one")
        if network is not None:
            self.denoiser = Denoiser(network, prediction, sigma_data)
            return
        found = find_trained(str(folder), "teacher", DESCRIPTION)
        if found is None:
            remedy = f"train it: scoredistill fit --config {trained_by}" if trained_by else "train one first"
            raise ValueError(f"there is no trained teacher in {folder}: {remedy}")
        self.denoiser = load_denoiser(found)

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x_t, t, condition, self.schedule)

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        n = len(conditions)
        if n == 1:
            return [self(x_t, t, conditions[0])]
        rows = x_t.repeat(n, *(1,) * (x_t.ndim - 1))
        whole = self(rows, t.repeat(n), below_each_other(conditions, len(x_t)))
        return [Prediction.of(whole.kind, value, x_t, t, self.schedule) for value in whole.value.chunk(n)]

    def denoiser_for(self, user: str) -> Denoiser:
        return self.denoiser


def below_each_other(conditions: Sequence[Condition | None], rows: int) -> Condition | None:
    """Several conditions as one, their rows below each other: what all of them have, and the labels that any of them
    has, `NO_LABEL` in the others' rows. What only some have of the rest is left out, so that a network that needs it
    says so.

    Args:
        conditions: of B rows each, or one text for all of them; None: unconditional.
        rows: B.
    """
    parts = [Condition() if condition is None else condition for condition in conditions]
    values = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Condition)}
    labels = [label for label in values["label"] if label is not None]
    if labels:
        none = torch.full_like(labels[0], NO_LABEL)
        values["label"] = [none if label is None else label for label in values["label"]]
    for name in ("prompt", "negative_prompt"):
        values[name] = [(text,) * rows if isinstance(text, str) else text for text in values[name]]
    common = {name: joined(own) for name, own in values.items() if all(value is not None for value in own)}
    return Condition(**common) if common else None
