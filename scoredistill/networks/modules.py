"""Helpers for modules of PyTorch: evaluation mode, float64 buffers, and a search for NaN and infinity in weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Set modules to evaluation mode inside the `with` block, and restore each submodule's mode afterwards."""
    trained = [module for each in modules for module in each.modules() if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


class Precise(nn.Module):
    """A module whose direct float64 buffers, such as running statistics, stay float64 in casts to other dtypes."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: value for name, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse)
        for name, value in before.items():
            cast = self._buffers[name]
            if value.dtype == torch.float64 and cast is not None and cast.dtype != torch.float64:
                self._buffers[name] = value.to(cast.device)
        return self


@torch.no_grad()
def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """The dotted name of the first tensor with a value that is NaN or infinite, or None.

    It computes the largest magnitude of each tensor, and synchronizes with the device once.

    Args:
        state: a state dict, also of optimizers or otherwise nested. Of sharded tensors, the local shard is checked.
    """
    named = list(_tensors(state, ""))
    if not named:
        return None
    # Not the Euclidean norm, whose squares may overflow although the values are finite.
    norms = torch._foreach_norm([value for _, value in named], float("inf"))
    finite = torch.cat([norm.isfinite().reshape(1).to(norms[0].device) for norm in norms])
    return None if bool(finite.all()) else named[int(finite.logical_not().nonzero()[0])][0]


def _tensors(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        value = node.to_local() if isinstance(node, DTensor) else node
        if value.numel() and (value.is_floating_point() or value.is_complex()):
            yield name, value
    elif isinstance(node, Mapping):
        for key, each in node.items():
            yield from _tensors(each, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list | tuple):
        for number, each in enumerate(node):
            yield from _tensors(each, f"{name}.{number}")
