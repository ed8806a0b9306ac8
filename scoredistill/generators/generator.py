"""What every generator owes: samples that are differentiable in its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Sample


class Generator(nn.Module, ABC):
    """x = g(theta, z, condition). A subclass implements `forward`.

    A generator of particles states how many it holds in `particles`; one that samples from noise leaves it None.
    """

    particles: int | None = None
    first_particle: int = 0
    """Index of the first particle held here, where others are held elsewhere."""
    progress: float = 0.0
    """Fraction of training done, as `on_progress` was last told; schedules depend on it."""

    @abstractmethod
    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Make samples.

        Args:
            batch: conditions (for 3D generators, V cameras) or the number of samples asked for.
            rng: CPU generator from which all randomness is drawn; None: torch's global one.
        """

    def bind(self, teacher: Teacher) -> None:
        """Take from the teacher what was not given; nothing for most. The `Distiller` calls it once."""
        del teacher

    def start_from(self, other: Generator) -> None:
        """Take over what another generator has learned, before training: a later stage starts from a former one's.

        Here its parameters and buffers as they are.

        Args:
            other: of the same class and sizes; what else a generator can start from, it says itself.

        Raises:
            ValueError: if it cannot start from that one.
        """
        try:
            self.load_state_dict(other.state_dict())
        except RuntimeError as error:
            mine, theirs = type(self).__name__, type(other).__name__
            raise ValueError(f"a {mine} cannot start from this {theirs}: {' '.join(str(error).split())}") from error

    def keep_particles(self, first: int, count: int) -> None:
        """Keep some of the particles only. Each keeps its memory, in place.

        Every parameter, and every buffer that is saved, has a leading axis of n particles, scalars excepted.

        Args:
            first: index of the first particle that is kept.
            count: how many are kept.

        Raises:
            ValueError: if there are no particles, or a tensor has no such axis.
        """
        if self.particles is None:
            raise ValueError(f"{type(self).__name__} has no particles")
        saved = self.state_dict().keys()
        for name, value in (*self.named_parameters(), *self.named_buffers()):
            if name not in saved or value.ndim == 0 or len(value) == count:
                continue  # what a moving average shares with its network has been cut already
            if len(value) != self.particles:
                raise ValueError(f"{name} of {type(self).__name__} has no row for each particle, {tuple(value.shape)}")
            value.data = value.data[first : first + count].clone()
        self.particles, self.first_particle = count, first

    def population(self) -> Sample | None:
        """Every particle, without gradient, where particles are samples themselves; None where they are rendered."""
        return None

    def on_progress(self, step: int, progress: float, rng: torch.Generator | None = None) -> None:
        """Told before each update how far training is: the place for resolution schedules and occupancy grids.

        Args:
            step: generator steps done so far.
            progress: the same as a fraction of all steps, in [0, 1].
            rng: CPU generator for whatever is random in it.
        """
        del step, rng
        self.progress = progress
