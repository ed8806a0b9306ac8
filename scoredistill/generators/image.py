"""Image particles: each particle is one sample, a point, a picture or a latent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from scoredistill.data.picture_files import read_picture
from scoredistill.generators.generator import Generator
from scoredistill.ranges import require
from scoredistill.types import Batch, Condition, Sample


class ParticleInit(ABC):
    """Initial values of image particles. A subclass implements `draw`."""

    @abstractmethod
    def draw(self) -> Tensor:
        """The initial particles, (n, *D)."""


class GaussianInit(ParticleInit):
    """Particles drawn from N(mean, std^2 I).

    Args:
        particles: number of particles, >= 1.
        shape: *D, the shape of one particle, >= 1.
        mean: mean of every coordinate, finite.
        std: standard deviation of every coordinate, >= 0; 0: all particles start equal.
        seed: random seed, in [0, 2^32).
    """

    def __init__(
        self, particles: int, shape: Sequence[int], mean: float = 0.0, std: float = 1.0, seed: int = 0
    ) -> None:
        require(">= 1", particles=particles, shape=shape)
        require("finite", mean=mean)
        require(">= 0", std=std)
        require("[0, 2^32)", seed=seed)
        self.particles = particles
        self.shape = tuple(shape)
        self.mean = mean
        self.std = std
        self.seed = seed

    def draw(self) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        return self.mean + self.std * torch.randn(self.particles, *self.shape, generator=rng)


class PictureInit(ParticleInit):
    """Particles that start as pictures in [-1, 1], for editing. Pictures are neither cropped nor resized.

    Args:
        files: one picture per particle, all of the same size.

    Raises:
        ValueError: if there is no file, a file cannot be read, or the sizes differ.
    """

    def __init__(self, files: Sequence[str]) -> None:
        if not files:
            raise ValueError("PictureInit needs at least one file")
        self.files = [Path(file) for file in ([files] if isinstance(files, str) else files)]

    def draw(self) -> Tensor:
        pictures = [read_picture(file) for file in self.files]
        for file, picture in zip(self.files, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                sizes = [f"{p.shape[2]} x {p.shape[1]}" for p in (pictures[0], picture)]
                raise ValueError(
                    f"{file} has {sizes[1]} pixels and {self.files[0]} has {sizes[0]}: resize them to the same size"
                )
        return torch.stack(pictures)


class ImageParticles(Generator):
    """Each particle is one sample; the identity as a generator:

        x_i = theta_i

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213, the 2D experiments.

    Args:
        init: (n, *D) initial particles, or a `ParticleInit` that draws them.
        per_step: number of particles in one step, drawn without replacement, >= 1; None: all particles.
        labels: class label of each particle, n integers, >= 0; None: unconditional.
    """

    particles: int
    labels: Tensor | None

    def __init__(
        self, init: Tensor | ParticleInit, per_step: int | None = None, labels: Sequence[int] | None = None
    ) -> None:
        require(">= 1", per_step=per_step)
        require(">= 0", labels=labels)
        super().__init__()
        start = init.draw() if isinstance(init, ParticleInit) else init
        self.particles = len(start)
        self.values = nn.Parameter(start.detach().clone())
        if per_step is not None and not 1 <= per_step <= self.particles:
            raise ValueError(f"per_step must be between 1 and the {self.particles} particles, got {per_step}")
        if labels is not None and len(labels) != self.particles:
            raise ValueError(f"labels must be {self.particles} integers, one per particle; got {len(labels)}")
        self.per_step = per_step
        self.register_buffer("labels", None if labels is None else torch.as_tensor(labels))

    def keep_particles(self, first: int, count: int) -> None:
        if self.per_step is not None:
            raise ValueError("per_step: randomly chosen particles cannot be split over processes; set per_step: null")
        super().keep_particles(first, count)

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        n = self.particles
        device = self.values.device
        condition = self._condition(batch)
        if self.per_step is None:
            particle = self.first_particle + torch.arange(n, device=device)
            return Sample(self.values, condition, particle=particle, view_index=self.labels)
        chosen = torch.randperm(n, generator=rng)[: self.per_step].to(device)
        return Sample(
            self.values[chosen],
            None if condition is None else condition[chosen],
            particle=chosen,
            view_index=None if self.labels is None else self.labels[chosen],
            population=self.values.detach(),
            population_view_index=self.labels,
        )

    def population(self) -> Sample:
        return Sample(self.values.detach(), view_index=self.labels)

    def _condition(self, batch: Batch) -> Condition | None:
        """The condition of each particle, n rows; a condition of one row is expanded."""
        n = self.particles
        device = self.values.device
        condition, shard = batch.condition, batch.shard
        if condition is not None and shard.parts > 1 and condition.rows == n * shard.parts:
            condition = condition[shard.own(torch.arange(condition.rows, device=device))]
        if condition is not None and condition.rows not in (None, n):
            if condition.rows != 1:
                raise ValueError(f"ImageParticles holds {n} particles; the condition has {condition.rows} rows")
            condition = condition[torch.zeros(n, dtype=torch.long, device=device)]
        if self.labels is None:
            return condition
        return replace(condition or Condition(), label=self.labels)
