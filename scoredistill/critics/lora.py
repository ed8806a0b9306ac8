"""A critic that is a LoRA over a frozen text-to-image network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scoredistill.critics.trained import TrainedCritic
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.embedding import CameraConditioned
from scoredistill.networks.lora import LoRA, add_lora, load_lora, save_lora, sharing_copy
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, Sample


class LoRACritic(TrainedCritic):
    """The base network with adapters, trained along with the generator:

        min_phi E ||y_{base + LoRA_phi}(x_t, t, condition, camera) - y||^2

    with y in the base's parameterization. It starts as the base and shares its frozen weights; only the adapters and
    the camera's MLP are trained and saved.

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213.

    Args:
        lora: rank, scale and targets; None: rank 4 on all attention projections.
        base: a model over the same space as the teacher, for example a v model beside an epsilon teacher; None: the
            teacher. Its network is conditioned on the noise level of x_t, whatever its own schedule.
        camera: add an embedding of the camera to the network's time embedding.
        camera_dropout: probability of dropping a sample's camera in training, in [0, 1].
        particles: number of adapters, one per particle of the generator, >= 1; None: one shared adapter.
        plain_text: encode prompts without view texts; the view is then known to the critic from `camera` only.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        lora: LoRA | None = None,
        base: Teacher | None = None,
        camera: bool = False,
        camera_dropout: float = 0.1,
        particles: int | None = None,
        plain_text: bool = True,
    ) -> None:
        require("[0, 1]", camera_dropout=camera_dropout)
        require(">= 1", particles=particles)
        super().__init__()
        self.lora = lora or LoRA(rank=4)
        self.particles = particles
        self.plain_text = plain_text
        self.camera = camera
        self.camera_dropout = camera_dropout
        # In a tuple so that it is no submodule: only the base's network belongs on the critic's device.
        self._base: tuple[Teacher, ...] = () if base is None else (base,)
        self._encode_prompt: Callable[[Condition | None, int | None], Condition | None] | None = None
        self.denoisers = nn.ModuleList()

    def bind(self, teacher: Teacher) -> None:
        if len(self.denoisers):
            return
        owner = next(iter(self._base), teacher).requires_grad_(False)
        network = owner.denoiser_for("the critic")
        _require_same_scale(network, owner.schedule, teacher.schedule)
        self._encode_prompt = owner.encode_prompt if self.plain_text or self._base else None
        self.denoisers.extend(self._adapted(network) for _ in range(self.particles or 1))

    def predict(self, diffused: Diffused) -> Prediction:
        if not len(self.denoisers):
            raise ValueError("LoRACritic has no network yet: put it into a Distiller")
        x_t = diffused.x_t
        t = diffused.t
        schedule = diffused.schedule
        condition = self._read(diffused.condition, len(x_t))
        if self.particles is None:
            return self.denoisers[0](x_t, t, condition, schedule)
        parts, rows = [], []
        for particle, own in self._rows_by_particle(diffused.sample):
            own = own.to(x_t.device)
            part = None if condition is None else condition[own]
            parts.append(self.denoisers[particle](x_t[own], t[own], part, schedule))
            rows.append(own)
        value = torch.cat([part.value for part in parts])[torch.cat(rows).argsort()]
        return Prediction.of(parts[0].kind, value, x_t, t, schedule)

    def error(self, predicted: Prediction, diffused: Diffused) -> Tensor:
        return cast(Denoiser, self.denoisers[0]).error(predicted, diffused)

    @property
    def frozen(self) -> set[str]:
        named = self.named_parameters(remove_duplicate=False)
        buffers = self.named_buffers(remove_duplicate=False)
        return {name for name, value in chain(named, buffers) if not value.requires_grad}

    def denoiser_for(self, user: str) -> Denoiser:
        if len(self.denoisers) != 1:
            have = "one network per particle" if len(self.denoisers) else "no network yet"
            raise ValueError(f"LoRACritic has {have}, {user} needs one: put it into a Distiller, with particles: null")
        return cast(Denoiser, self.denoisers[0])

    def save(self, folder: str | Path) -> None:
        """Write the adapters as diffusers' LoRA files beside the camera's MLP; one folder 0, 1, ... per particle.

        Args:
            folder: the destination.
        """
        for denoiser, place in self._places(folder):
            save_lora(denoiser, self.lora, place)
            if isinstance(denoiser.network, CameraConditioned):
                denoiser.network.save(place)

    def load(self, folder: str | Path) -> None:
        """Load what `save` wrote.

        Args:
            folder: the source.

        Raises:
            ValueError: if a file is missing, or its rank, targets or network differ.
        """
        for denoiser, place in self._places(folder):
            load_lora(denoiser, place)
            if isinstance(denoiser.network, CameraConditioned):
                denoiser.network.load(place)

    def _adapted(self, network: Denoiser) -> Denoiser:
        """A copy of the network that shares its weights and has its own adapters."""
        adapted = sharing_copy(network)
        add_lora(adapted, self.lora)
        if self.camera:
            adapted.network = CameraConditioned(adapted.network, self.camera_dropout)
        return adapted.train(self.training)  # a teacher is in evaluation mode, and so is its copy

    def _read(self, condition: Condition | None, rows: int) -> Condition | None:
        """The condition with its prompt encoded by the base's text encoder, without view texts if `plain_text`."""
        if condition is None or condition.prompt is None or self._encode_prompt is None:
            return condition
        camera = None if self.plain_text else condition.camera
        read = self._encode_prompt(replace(condition, camera=camera, embeddings=None), rows)
        if read is None or read.embeddings is None:
            return condition
        return replace(condition, embeddings=read.embeddings)

    def _rows_by_particle(self, sample: Sample) -> list[tuple[int, Tensor]]:
        """Each particle of a batch with its rows."""
        if sample.particle is None:
            raise ValueError(
                "LoRACritic has one adapter per particle, but the samples have no particle index: set null"
            )
        found = sample.particle.unique().tolist()
        if found[-1] >= len(self.denoisers):
            raise ValueError(f"LoRACritic has particles: {len(self.denoisers)}, the generator at least {found[-1] + 1}")
        return [(particle, (sample.particle == particle).nonzero()[:, 0]) for particle in found]

    def _places(self, folder: str | Path) -> list[tuple[Denoiser, Path]]:
        if not len(self.denoisers):
            raise ValueError("LoRACritic has no network to save or load yet: put it into a Distiller")
        own = [Path(folder) if self.particles is None else Path(folder) / str(i) for i in range(len(self.denoisers))]
        return [(cast(Denoiser, denoiser), place) for denoiser, place in zip(self.denoisers, own, strict=True)]


def _require_same_scale(network: Denoiser, own: Schedule, given: Schedule) -> None:
    """Raise an error if x_t is scaled unlike in the network's training and its output depends on the scale.

    Raises:
        ValueError: if alpha at one signal-to-noise ratio differs between the schedules.
    """
    t = torch.linspace(0.3, 0.7, 5, dtype=torch.float64)
    same = torch.allclose(own.alpha(own.t_at_log_snr(given.log_snr(t))), given.alpha(t))
    if not same and (network.prediction in ("v", "score") or not network.scale_input):
        raise ValueError(
            f"base: its {network.prediction} network was trained under {type(own).__name__}, which scales x_t unlike "
            f"the teacher's {type(given).__name__}: choose a base of the teacher's family"
        )
