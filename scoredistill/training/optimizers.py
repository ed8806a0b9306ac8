"""How each network is optimised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from scoredistill.annealing import Annealed, at_progress

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]


class NetworkOptimizer:
    """An optimiser with its learning-rate schedule and gradient clipping, for one network.

    The schedule is a function of progress alone: it has no state that a resumed run could get wrong.

    Args:
        optimizer: a class of torch.optim with its settings.
        rates: learning rates of parameters whose names begin with a prefix, the longest match counting, in place of the
            optimiser's own.
        factor: what all learning rates are multiplied by, a constant or a `Piecewise` over progress.
        warmup: steps over which they grow linearly from zero.
        clip: largest norm of the whole gradient; None: no clipping.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        rates: Mapping[str, float] | None = None,
        factor: Annealed = 1.0,
        warmup: int = 0,
        clip: float | None = None,
    ) -> None:
        self.optimizer, self.rates, self.factor = optimizer, dict(rates or {}), factor
        self.warmup, self.clip = warmup, clip

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over a network's trainable parameters.

        Raises:
            ValueError: if a prefix in `rates` matches no parameter.
        """
        groups: dict[str, list[Tensor]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                matches = [prefix for prefix in self.rates if name.startswith(prefix)]
                groups.setdefault(max(matches, key=len, default=""), []).append(parameter)
        for prefix in self.rates:
            if prefix not in groups:
                names = ", ".join(sorted({name.split(".")[0] for name, _ in network.named_parameters()}))
                raise ValueError(f"rates: no parameter begins with {prefix!r}; there are {names}")
        settings = [{"params": p, **({"lr": self.rates[prefix]} if prefix else {})} for prefix, p in groups.items()]
        optimizer = self.optimizer(settings)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def prepare(self, optimizer: torch.optim.Optimizer, step: int, progress: float) -> None:
        """Set the learning rates of the step to come.

        Args:
            optimizer: from `build`.
            step: steps that this network has done.
            progress: fraction of training done.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warm * at_progress(self.factor, progress)

    def clip_gradient(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Clip, and return the norm that the gradient had."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, self.clip if self.clip is not None else float("inf"))
