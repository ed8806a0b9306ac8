"""Optimizers' states, whose tensors are laid out over processes as their parameters are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def converted(state: Mapping[str, Any], convert: Callable[[int, Tensor], Tensor | None]) -> dict[str, Any]:
    """An optimizer's state dict with other tensors.

    Args:
        state: as `torch.optim.Optimizer.state_dict` has it.
        convert: from a parameter's number and one of its tensors, scalars left out, to the new tensor.
    """
    known = {
        number: {
            name: convert(number, value) if isinstance(value, Tensor) and value.ndim else value
            for name, value in own.items()
        }
        for number, own in state["state"].items()
    }
    return {**state, "state": known}
