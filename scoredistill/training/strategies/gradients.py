"""Gradients of parameters that several processes train: averages, norms, clipping.

A parameter is one of three kinds: a copy, the same on every process; a shard of torch's `fully_shard`, a DTensor whose
gradient has been averaged by its backward pass; or the process's own, of particles that nobody else holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from scoredistill.distributed import all_reduce

BUCKET = 2**24
"""Numbers that are averaged by one message between processes, about."""


def local(value: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def average(parameters: Iterable[Tensor]) -> None:
    """Average the gradients of copies over the processes; one that has none yet counts as 0.

    Args:
        parameters: the same on every process, in the same order; shards among them are left alone.
    """
    bucket: list[Tensor] = []
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (bucket[0].dtype != parameter.dtype or sum(g.numel() for g in bucket) > BUCKET):
            _average(bucket)
            bucket = []
        bucket.append(parameter.grad)
    if bucket:
        _average(bucket)


def _average(gradients: Sequence[Tensor]) -> None:
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    all_reduce(whole).div_(dist.get_world_size())
    for gradient, mean in zip(gradients, whole.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def total_norm(parameters: Sequence[Tensor], own: bool = False) -> Tensor:
    """Euclidean norm of the whole gradient, that of shards and of other processes' particles included.

    Args:
        parameters: of one optimizer.
        own: whether every process has its own particles.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded = [local(g) for g in gradients if own or isinstance(g, DTensor)]
    if not sharded:
        return torch.nn.utils.get_total_norm(gradients)
    copies = [g for g in gradients if not (own or isinstance(g, DTensor))]
    square = all_reduce(torch.nn.utils.get_total_norm(sharded).square())
    return (square + torch.nn.utils.get_total_norm(copies).square().to(square)).sqrt() if copies else square.sqrt()


def clip(parameters: Sequence[Tensor], norm: Tensor, largest: float) -> None:
    """Scale the whole gradient down to a largest norm.

    Args:
        parameters: of one optimizer.
        norm: that their gradient has.
        largest: that it may have.
    """
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))
