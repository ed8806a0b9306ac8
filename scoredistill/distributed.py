"""Collective operations of processes, and their shards of batches and particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types import Sample, Shard

__all__ = ["BatchShard", "ParticleShard", "all_gather", "all_reduce", "gather_to_rank0", "is_distributed"]


def all_reduce(value: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Reduce a tensor over all processes, in place.

    Args:
        value: tensor of any shape.
        operation: sum, maximum, ...

    Returns:
        The same tensor.
    """
    if is_distributed():
        dist.all_reduce(value, operation)
    return value


def all_gather(value: Tensor) -> Tensor:
    """Concatenate the tensors (B, ...) of all P processes to (P B, ...), without gradient."""
    if not is_distributed():
        return value.detach()
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def gather_to_rank0(value: Tensor) -> Tensor | None:
    """Concatenate them on the first process only; None on the others, which need no memory for it."""
    if not is_distributed():
        return value.detach()
    first = dist.get_rank() == 0
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())] if first else None
    dist.gather(value.detach().contiguous(), parts)
    return None if parts is None else torch.cat(parts)


def is_distributed() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


@dataclass(frozen=True)
class BatchShard(Shard):
    """The batch of one of several processes; statistics are computed over the batches of all of them."""

    def sum(self, value: Tensor) -> Tensor:
        return all_reduce(value.detach().clone())

    def max(self, value: Tensor) -> Tensor:
        return all_reduce(value.detach().clone(), dist.ReduceOp.MAX)


@dataclass(frozen=True)
class ParticleShard(BatchShard):
    """Particles `first` to `first + held` (exclusive) of n, which are split evenly over the processes by rank.

    Args:
        draw_on_device: see `Shard`.
        process: rank of this process, below `processes`, >= 0.
        processes: number of processes, >= 1.
        particles: number n of particles of all processes together, >= 1.

    Raises:
        ValueError: if n cannot be split evenly.
    """

    process: int = 0
    processes: int = 1
    particles: int = 1

    def __post_init__(self) -> None:
        require(">= 0", process=self.process)
        require(">= 1", processes=self.processes, particles=self.particles)
        if self.particles % self.processes:
            raise ValueError(
                f"particles: {self.particles} cannot be split evenly over {self.processes} processes: use a multiple "
                "of this number, or fewer devices"
            )

    @property
    def parts(self) -> int:
        return self.processes

    @property
    def held(self) -> int:
        """Number of particles of this process."""
        return self.particles // self.processes

    @property
    def first(self) -> int:
        """Index of this process's first particle."""
        return self.process * self.held

    def own(self, value: Tensor) -> Tensor:
        """This process's rows of a tensor with n or n V rows for all particles, in their order."""
        return value.tensor_split(self.processes)[self.process]

    def draw(self, draw_rows: Callable[[int], Tensor], rows: int) -> Tensor:
        return self.own(draw_rows(rows * self.processes))

    def noise_like(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        return self.draw(lambda rows: self.normal((rows, *x.shape[1:]), x.dtype, x.device, rng), len(x))

    def with_population(self, sample: Sample) -> Sample:
        views = sample.views
        all_views = None if views is None else all_gather(views)
        return replace(sample, population=all_gather(sample.x), population_view_index=all_views)
