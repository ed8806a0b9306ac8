"""Modules with float64 buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


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
