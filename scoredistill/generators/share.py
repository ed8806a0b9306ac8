"""The particles that one of several processes holds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Particles `first` to `first + held` (exclusive) of n. Every process holds as many, in the order of the processes.

    Args:
        process: which one it is, in [0, processes).
        processes: among which the particles are split.
        particles: n, of all processes together.

    Raises:
        ValueError: if n cannot be split evenly.
    """

    process: int
    processes: int
    particles: int

    def __post_init__(self) -> None:
        if self.particles % self.processes:
            raise ValueError(
                f"particles: {self.particles} cannot be split evenly over {self.processes} processes: ask for a "
                "multiple of them, or for fewer devices"
            )

    @property
    def held(self) -> int:
        """Particles of this process."""
        return self.particles // self.processes

    @property
    def first(self) -> int:
        """Index of the first of them among all."""
        return self.process * self.held

    def of(self, whole: Tensor) -> Tensor:
        """This process's rows of what has rows for all particles, in their order: n of them, or n V."""
        return whole.tensor_split(self.processes)[self.process]
