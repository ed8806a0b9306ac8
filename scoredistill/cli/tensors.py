"""Tensors in recipes: nested lists of numbers."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import register_type


def read_tensor(value: Any) -> torch.Tensor:
    """A tensor from (nested) lists of numbers; a number alone is left to the other types of a field.

    Raises:
        ValueError: if it is something else.
    """
    if type(value) not in (list, tuple):  # jsonargparse's own tuples are not meant
        raise ValueError("not a list")
    try:
        return torch.tensor(_numbers(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"not a list of numbers, nor of such lists of equal length: {error}") from error


def _numbers(value: Any) -> Any:
    """Nested lists with 1e-3 as a number, which recipes' YAML has as text."""
    if isinstance(value, (list, tuple)):
        return [_numbers(each) for each in value]
    return float(value) if isinstance(value, str) else value


def _write(tensor: torch.Tensor) -> Any:
    """The shortest decimals that give the same tensor, .1 and not .10000000149."""
    values = tensor.detach().cpu().numpy()
    return values.astype(str).astype(float).tolist() if tensor.is_floating_point() else values.tolist()


def register_tensors() -> None:
    """Let every parameter of type Tensor take nested lists."""
    register_type(torch.Tensor, _write, read_tensor, type_check=lambda value, kind: isinstance(value, kind))
