"""A trained network as the teacher."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import EDMSchedule, Schedule
from scoredistill.networks.base import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterisation
from scoredistill.networks.storage import DESCRIPTION, load_denoiser
from scoredistill.teachers.base import Teacher
from scoredistill.types import Condition


class EDMTeacher(Teacher):
    """A preconditioned network as the model of p; class-conditional where its backbone is.

    Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.

    Args:
        network: the backbone; null: `folder` has it.
        folder: a denoiser's folder, or the output of the recipe that trains it, whose newest finished run counts.
        trained_by: the recipe that trains it; `scoredistill fit` runs it first where `folder` holds none yet.
        prediction: edm, or what the backbone outputs; a folder knows its own.
        sigma_data: the data's standard deviation, for edm only; a folder knows its own.
        schedule: noise schedule; null: EDM's.

    Raises:
        ValueError: if not exactly one of network and folder is given, or the folder holds no network.
    """

    def __init__(
        self,
        network: Backbone | None = None,
        folder: str | None = None,
        trained_by: str | None = None,
        prediction: Parameterisation = "edm",
        sigma_data: float = 0.5,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(schedule or EDMSchedule())
        if (network is None) == (folder is None):
            raise ValueError("EDMTeacher needs either a network or the folder of one")
        if network is not None:
            self.denoiser = Denoiser(network, prediction, sigma_data)
            return
        found = find_teacher(str(folder))
        if found is None:
            remedy = f"train it: scoredistill fit --config {trained_by}" if trained_by else "train one first"
            raise ValueError(f"there is no trained teacher in {folder}: {remedy}")
        self.denoiser = load_denoiser(found)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x_t, t, condition, self.schedule)

    def network_of(self, whom: str) -> Denoiser:
        return self.denoiser


def find_teacher(folder: str | Path) -> Path | None:
    """The denoiser in a folder, or in the newest of its numbered runs that has finished; None where there is none.

    Args:
        folder: a denoiser's own folder, or the parent of run folders.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION).is_file():
        return folder
    runs = sorted(
        (int(path.parent.name) for path in folder.glob("*/teacher") if path.parent.name.isdecimal()), reverse=True
    )
    found = (folder / str(run) / "teacher" for run in runs)
    return next((path for path in found if (path / DESCRIPTION).is_file()), None)
