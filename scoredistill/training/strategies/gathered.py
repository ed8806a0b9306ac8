"""The generator of all particles, if each process holds a shard of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

from scoredistill.distributed import gather_to_rank0
from scoredistill.generators.generator import Generator


class GatheredGenerator:
    """A second generator on the first process, into which all particles are gathered for evaluation.

    Between evaluations it is on the CPU, where it takes the memory of all n particles' weights.

    Args:
        generator: the generator before it is split.
        is_first: whether this is the first process.
    """

    generator: Generator | None = None
    """The generator of all particles, inside the block of `gather` on the first process."""

    def __init__(self, generator: Generator, is_first: bool) -> None:
        self._copy = deepcopy(generator).requires_grad_(False) if is_first else None

    @contextmanager
    def gather(self, shard: Generator) -> Iterator[bool]:
        """Gather the particles of all processes inside the block. All processes must enter it.

        Args:
            shard: this process's generator.

        Yields:
            whether this process holds the gathered generator.
        """
        state = {name: gather_to_rank0(value) if value.ndim else value for name, value in shard.state_dict().items()}
        full = self._copy
        if full is None:
            yield False
            return
        device = next(shard.parameters()).device
        full.to(device).load_state_dict({name: value for name, value in state.items() if value is not None})
        full.progress = shard.progress
        self.generator = full
        try:
            yield True
        finally:
            self.generator = None
            full.to(torch.device("cpu"))
