"""The generator of all particles, where every process holds a share of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

from scoredistill.distributed import gather_to_rank0
from scoredistill.generators.generator import Generator


class Whole:
    """A second generator on the first process, which holds every particle whenever somebody looks at it.

    It waits on the CPU, and so costs the first process memory for n particles' weights there.

    Args:
        generator: before it is split.
        first: whether this is the first process.
    """

    shown: Generator | None = None
    """It, while it is looked at."""

    def __init__(self, generator: Generator, first: bool) -> None:
        self._generator = deepcopy(generator).requires_grad_(False) if first else None

    @contextmanager
    def of(self, own: Generator) -> Iterator[bool]:
        """Inside the block the first process shows every process's particles together. All have to come here.

        Args:
            own: this process's generator.

        Returns:
            whether this process shows them.
        """
        state = {name: gather_to_rank0(value) if value.ndim else value for name, value in own.state_dict().items()}
        whole = self._generator
        if whole is None:
            yield False
            return
        device = next(own.parameters()).device
        whole.to(device).load_state_dict({name: value for name, value in state.items() if value is not None})
        whole.progress = own.progress
        self.shown = whole
        try:
            yield True
        finally:
            self.shown = None
            whole.to(torch.device("cpu"))
