"""Moving averages of a network's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scoredistill.ranges import require
from scoredistill.training.strategies.gradients import local


class Averaging(ABC):
    """How much of a moving average each step keeps:

        theta_bar <- kept theta_bar + (1 - kept) theta    after every step

    A subclass implements `kept`. Up to the step `start` the average is a copy of the weights.

    Args:
        start: number of steps before the first one that is averaged, >= 0.
    """

    def __init__(self, start: int = 0) -> None:
        require(">= 0", start=start)
        self.start = start

    @abstractmethod
    def kept(self, averaged: int, samples: int) -> float:
        """The kept share, in [0, 1).

        Args:
            averaged: number of steps that the average contains, >= 1.
            samples: number of samples in the step, on all processes, >= 1.
        """


class Decay(Averaging):
    """An exponential average: kept = decay.

    Args:
        decay: per step, in [0, 1).
        start: number of steps before the first one that is averaged, >= 0.
    """

    def __init__(self, decay: float = 0.999, start: int = 0) -> None:
        require("[0, 1)", decay=decay)
        super().__init__(start)
        self.decay = decay

    def kept(self, averaged: int, samples: int) -> float:
        return self.decay


class HalfLife(Averaging):
    """An exponential average in which a step's share halves after a number of steps or samples: kept = 2^(-n / h)

    with n = 1 step, or the samples of one step: the same average in training time for any batch size.

    Args:
        half_life: h, > 0.
        unit: steps or samples.
        start: number of steps before the first one that is averaged, >= 0.
    """

    def __init__(self, half_life: float, unit: Literal["steps", "samples"] = "steps", start: int = 0) -> None:
        require("> 0", half_life=half_life)
        super().__init__(start)
        self.half_life, self.unit = half_life, unit

    def kept(self, averaged: int, samples: int) -> float:
        return float(0.5 ** ((samples if self.unit == "samples" else 1) / self.half_life))


class PowerFunction(Averaging):
    """Weights that grow with a power of the step, n^gamma: kept = (1 - 1 / n)^(gamma + 1) in the n-th step

    The average covers a constant share of training, whatever its length: the weights' standard deviation in units of n,
    (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = std^2.

    "Analyzing and Improving the Training Dynamics of Diffusion Models" (2023), arXiv:2312.02696, section 3.1.

    Args:
        std: the relative width, in (0, 0.28]: .05 and .1 are published.
        start: number of steps before the first one that is averaged, >= 0.
    """

    def __init__(self, std: float = 0.1, start: int = 0) -> None:
        require("(0, 0.28]", std=std)
        super().__init__(start)
        self.std = std
        # With a = gamma + 2: a^3 + a^2 - a / std^2 + 1 / std^2 = 0, whose largest root is sought.
        inverse = std**-2
        companion = torch.tensor([[-1.0, inverse, -inverse], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
        self.gamma = float(torch.linalg.eigvals(companion).real.max()) - 2

    def kept(self, averaged: int, samples: int) -> float:
        return float((1 - 1 / (averaged + 1)) ** (self.gamma + 1))


class MovingAverage(nn.Module):
    """A moving average of a network's parameters, which starts from the first step's weights.

    Frozen parameters are shared with the network, not copied: the average of a student with LoRA over a large teacher
    does not duplicate the teacher. The average needs no gradient.

    Args:
        network: the network that is averaged.
        rule: how much each step keeps, or the decay of an exponential average, in [0, 1).

    Raises:
        ValueError: if decay is out of its range.
    """

    def __init__(self, network: nn.Module, rule: Averaging | float) -> None:
        super().__init__()
        if not isinstance(rule, Averaging):
            require("[0, 1)", ema=rule)
            rule = Decay(rule)
        self.rule = rule
        frozen: dict[int, Any] = {id(p): p for p in network.parameters() if not p.requires_grad}
        self.module = deepcopy(network, frozen).requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module, samples: int = 1) -> None:
        """Update the average with the network's parameters, and copy its buffers.

        Args:
            network: the network that is averaged.
            samples: number of samples in the step, on all processes, >= 1.
        """
        pairs = zip(self.module.parameters(), network.parameters(), strict=True)
        # Each process averages its shards of a sharded network.
        averages, values = zip(*((local(a), local(b.detach())) for a, b in pairs if a is not b), strict=True)
        averaged = self.updates - self.rule.start
        if averaged <= 0:
            torch._foreach_copy_(list(averages), list(values))
        else:
            average = get_ema_multi_avg_fn(self.rule.kept(averaged, samples))
            average(list(averages), list(values), cast(Any, averaged))
        for buffer, value in zip(self.module.buffers(), network.buffers(), strict=True):
            buffer.copy_(value)
        self.updates += 1


DEFAULT = "ema"
"""Name of the average that is given by its decay alone."""


def averages_of(network: nn.Module, ema: float | Mapping[str, Averaging] | None) -> nn.ModuleDict:
    """A network's moving averages by name.

    Args:
        network: the network that is averaged.
        ema: the decay of a single average, or rules by name; None: no average.

    Raises:
        ValueError: if a name is not an identifier, or the decay is out of its range.
    """
    rules: Mapping[str, Averaging | float] = {}
    if ema is not None:
        rules = ema if isinstance(ema, Mapping) else {DEFAULT: ema}
    for name in rules:
        if not name.isidentifier():
            raise ValueError(f"model.ema: {name!r} is not a name of letters, digits and underscores")
    return nn.ModuleDict({name: MovingAverage(network, rule) for name, rule in rules.items()})
