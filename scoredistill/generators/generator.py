"""The base class of generators."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Sample


class Generator(nn.Module, ABC):
    """x = g(theta, z, condition), differentiable in the parameters theta. A subclass implements `forward`."""

    particles: int | None = None
    """Number of particles; None for a generator that samples from noise."""
    first_particle: int = 0
    """Index of this process's first particle, if the particles are split over processes."""
    progress: float = 0.0
    """Fraction of training done, set by `on_progress`; annealed settings depend on it."""

    @abstractmethod
    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Generate samples.

        Args:
            batch: conditions (V cameras for 3D generators) or the number of samples.
            rng: CPU generator for all random numbers; None: torch's global one.
        """

    def bind(self, teacher: Teacher) -> None:
        """Complete the settings that depend on the teacher. Does nothing by default. The `Distiller` calls it once.

        Args:
            teacher: the model of p.
        """
        del teacher

    def start_from(self, other: Generator) -> None:
        """Initialize from a trained generator, for example from an earlier stage.

        By default this copies the parameters and buffers.

        Args:
            other: of the same class and sizes. A subclass may accept more.

        Raises:
            ValueError: if `other` does not fit.
        """
        try:
            self.load_state_dict(other.state_dict())
        except RuntimeError as error:
            kinds = f"a {type(self).__name__} cannot start from this {type(other).__name__}"
            raise ValueError(f"{kinds}: {' '.join(str(error).split())}") from error

    def keep_particles(self, first: int, count: int) -> None:
        """Keep only a range of particles, in place.

        Every parameter and every persistent buffer must have a leading particle axis, except scalars.

        Args:
            first: index of the first particle to keep.
            count: number of particles to keep.

        Raises:
            ValueError: if the generator has no particles, or a tensor has no particle axis.
        """
        if self.particles is None:
            raise ValueError(f"{type(self).__name__} has no particles")
        saved = self.state_dict().keys()
        for name, value in (*self.named_parameters(), *self.named_buffers()):
            if name not in saved or value.ndim == 0 or len(value) == count:
                continue  # a tensor that a moving average shares with its network is already cut
            if len(value) != self.particles:
                raise ValueError(f"{name} of {type(self).__name__} has no row for each particle, {tuple(value.shape)}")
            value.data = value.data[first : first + count].clone()
        self.particles = count
        self.first_particle = first

    def population(self) -> Sample | None:
        """All particles as samples, without gradient; None if particles have to be rendered."""
        return None

    def on_progress(self, step: int, progress: float, rng: torch.Generator | None = None) -> None:
        """Hook that runs before each update, for resolution schedules and occupancy grids.

        Args:
            step: generator steps done so far.
            progress: fraction of all steps done, in [0, 1].
            rng: CPU generator for random numbers.
        """
        del step, rng
        self.progress = progress
