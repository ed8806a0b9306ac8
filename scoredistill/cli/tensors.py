"""Tensors in recipes: nested lists of numbers."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import register_type


def _read(value: Any) -> torch.Tensor:
    """A tensor from (nested) lists of numbers; a number alone is left to the other types of a field."""
    if type(value) not in (list, tuple):  # jsonargparse's own tuples are not meant
        raise ValueError("not a list")
    try:
        return torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"not a list of numbers, nor of such lists of equal length: {error}") from error


def _write(tensor: torch.Tensor) -> Any:
    """The shortest decimals that give the same tensor, .1 and not .10000000149."""
    values = tensor.detach().cpu().numpy()
    return values.astype(str).astype(float).tolist() if tensor.is_floating_point() else values.tolist()


def register_tensors() -> None:
    """Let every parameter of type Tensor take nested lists."""
    register_type(torch.Tensor, _write, _read, type_check=lambda value, kind: isinstance(value, kind))
