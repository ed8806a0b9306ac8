"""What the processes of a run do together, and which particles each of them holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce(value: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Reduce a tensor over all processes, in place.

    Args:
        value: of any shape.
        operation: sum, maximum, ...

    Returns:
        The same tensor.
    """
    if is_distributed():
        dist.all_reduce(value, operation)
    return value


def all_gather(own: Tensor) -> Tensor:
    """Every process's tensor of the same shape (B, ...), one after the other, (P B, ...), without gradient."""
    if not is_distributed():
        return own.detach()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.detach().contiguous())
    return torch.cat(parts)


def gather_to_rank0(own: Tensor) -> Tensor | None:
    """The same on the first process alone, None on the others: nobody else needs the memory."""
    if not is_distributed():
        return own.detach()
    first = dist.get_rank() == 0
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())] if first else None
    dist.gather(own.detach().contiguous(), parts)
    return None if parts is None else torch.cat(parts)


def is_distributed() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


@dataclass(frozen=True)
class ParticleShard:
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
