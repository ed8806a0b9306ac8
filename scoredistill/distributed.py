"""What the processes of a run do together; nothing where there is one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def over_processes(value: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Reduce a tensor over all processes, in place.

    Args:
        value: of any shape.
        operation: sum, maximum, ...

    Returns:
        The same tensor.
    """
    if several():
        dist.all_reduce(value, operation)
    return value


def of_all(own: Tensor) -> Tensor:
    """Every process's tensor of the same shape (B, ...), one after the other, (P B, ...), without gradient."""
    if not several():
        return own.detach()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.detach().contiguous())
    return torch.cat(parts)


def on_the_first(own: Tensor) -> Tensor | None:
    """The same on the first process alone, None on the others: nobody else needs the memory."""
    if not several():
        return own.detach()
    first = dist.get_rank() == 0
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())] if first else None
    dist.gather(own.detach().contiguous(), parts)
    return None if parts is None else torch.cat(parts)


def several() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()
