"""The exponential moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scoredistill.ranges import require
from scoredistill.training.strategies.gradients import local


class MovingAverage(nn.Module):
    """Exponential moving average of a network's parameters:

        theta_bar <- decay theta_bar + (1 - decay) theta    after every step, starting from the first step's weights

    Frozen parameters are shared with the network, not copied: the average of a student with LoRA over a large teacher
    does not duplicate the teacher. The average needs no gradient.

    Args:
        network: the network that is averaged.
        decay: decay per step, in [0, 1).

    Raises:
        ValueError: if decay is out of its range.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        require("[0, 1)", ema=decay)
        super().__init__()
        frozen: dict[int, Any] = {id(p): p for p in network.parameters() if not p.requires_grad}
        self.module = deepcopy(network, frozen).requires_grad_(False)
        self.updates = 0
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the network's parameters, and copy its buffers."""
        pairs = zip(self.module.parameters(), network.parameters(), strict=True)
        # Each process averages its shards of a sharded network.
        averages, values = zip(*((local(a), local(b.detach())) for a, b in pairs if a is not b), strict=True)
        if self.updates == 0:
            torch._foreach_copy_(list(averages), list(values))
        else:
            self._average(list(averages), list(values), cast(Any, self.updates))
        for buffer, value in zip(self.module.buffers(), network.buffers(), strict=True):
            buffer.copy_(value)
        self.updates += 1
