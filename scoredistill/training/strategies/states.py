"""Conversion of the tensors in optimizer states, which have the layout of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


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
