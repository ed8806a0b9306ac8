"""Reductions over the processes of a run, which do nothing where there is one."""

from __future__ import annotations

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
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value, operation)
    return value
