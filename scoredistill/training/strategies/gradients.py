"""Averages, norms and clipping of gradients over processes.

A parameter is of one of three kinds: replicated, equal on every process; a shard of torch's `fully_shard`, a DTensor
whose gradient is averaged by its backward pass; or split, of particles that only this process holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from scoredistill.distributed import all_reduce

BUCKET = 2**24
"""Approximate number of elements that one collective operation averages."""


def local(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return value.to_local() if isinstance(value, DTensor) else value


def average(parameters: Iterable[Tensor]) -> None:
    """Average the gradients of replicated parameters over processes; a missing gradient counts as 0.

    Args:
        parameters: equal on every process, in the same order; shards are skipped.
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
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    all_reduce(flat).div_(dist.get_world_size())
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def total_norm(parameters: Sequence[Tensor], split: bool = False) -> Tensor:
    """Euclidean norm of the gradient in all parameters, including the shards and particles of other processes.

    Args:
        parameters: parameters of one optimizer.
        split: whether the parameters are particles split over processes.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded = [local(g) for g in gradients if split or isinstance(g, DTensor)]
    if not sharded:
        return torch.nn.utils.get_total_norm(gradients)
    copies = [g for g in gradients if not (split or isinstance(g, DTensor))]
    square = all_reduce(torch.nn.utils.get_total_norm(sharded).square())
    return (square + torch.nn.utils.get_total_norm(copies).square().to(square)).sqrt() if copies else square.sqrt()


def clip(parameters: Sequence[Tensor], norm: Tensor, largest: float) -> None:
    """Scale the gradient down to a largest norm.

    Args:
        parameters: parameters of one optimizer.
        norm: norm of their gradient.
        largest: largest allowed norm.
    """
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))


def converted(state: Mapping[str, Any], convert: Callable[[int, Tensor], Tensor | None]) -> dict[str, Any]:
    """Convert the tensors of an optimizer's state dict, except scalars.

    Args:
        state: from `torch.optim.Optimizer.state_dict`.
        convert: maps a parameter's index and one of its tensors to the new tensor.
    """
    values = {
        number: {
            name: convert(number, value) if isinstance(value, Tensor) and value.ndim else value
            for name, value in tensors.items()
        }
        for number, tensors in state["state"].items()
    }
    return {**state, "state": values}
