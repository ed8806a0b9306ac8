"""Evaluation mode of modules in a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
