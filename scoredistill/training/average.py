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
    """theta_bar <- decay theta_bar + (1 - decay) theta after every step; the first step's weights are the beginning.

    What is not trained is its own average and shared with the network: a student with LoRA over a large teacher does
    not double it. The average is never differentiated.

    Args:
        network: whose parameters are averaged.
        decay: in [0, 1).

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
        """Take in the network's weights, and its buffers as they are."""
        pairs = zip(self.module.parameters(), network.parameters(), strict=True)
        # Of shards of a network, each process averages its own.
        own, new = zip(*((local(a), local(b.detach())) for a, b in pairs if a is not b), strict=True)
        if self.updates == 0:
            torch._foreach_copy_(list(own), list(new))
        else:
            self._average(list(own), list(new), cast(Any, self.updates))
        for buffer, value in zip(self.module.buffers(), network.buffers(), strict=True):
            buffer.copy_(value)
        self.updates += 1
