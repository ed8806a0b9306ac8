"""Training and evaluation mode of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode inside the `with` block, without dropout; each as it was afterwards."""
    were = [(module, module.training) for each in modules for module in each.modules()]
    for each in modules:
        each.eval()
    try:
        yield
    finally:
        for module, training in were:
            module.training = training
