"""How each network is optimized."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoredistill.annealing import Annealed, Piecewise, at_progress
from scoredistill.ranges import require
from scoredistill.training.strategies import gradients

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]

HALF_EPS = 2.0**-12
"""The root of the smallest float16 above 0: a smaller gradient has the square 0, and Adam divides by eps alone."""


class NetworkOptimizer:
    """An optimizer with its learning-rate schedule and gradient clipping, for one network.

    The schedule is a function of progress alone: it has no state that a resumed run could get wrong. A checkpoint
    brings the optimizer's state, such as its moments; rates, betas and other settings are always those given here.
    In float16 (`trainer.precision 16-true`) an eps below 2^-12 is raised to it: torch's 1e-8 is 0 there, and the first
    step would be 0 / 0.

    Args:
        optimizer: a class of torch.optim with its settings, its learning rate > 0.
        rates: learning rates of parameters whose names begin with a prefix, the longest match counting, in place of the
            optimizer's own, > 0.
        factor: what all learning rates are multiplied by, a constant or a `Piecewise` over progress, >= 0, and
            not 0 throughout.
        warmup: steps over which they grow linearly from zero, >= 0.
        clip: largest norm of the whole gradient, > 0; None: no clipping.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        rates: Mapping[str, float] | None = None,
        factor: Annealed = 1.0,
        warmup: int = 0,
        clip: float | None = None,
    ) -> None:
        require("> 0", rates=rates, clip=clip)
        require(">= 0", factor=factor, warmup=warmup)
        if not any(factor if isinstance(factor, Piecewise) else [factor]):
            raise ValueError("factor is 0 at all times, so that nothing would be trained: set it above 0")
        self.optimizer, self.rates, self.factor = optimizer, dict(rates or {}), factor
        self.warmup, self.clip = warmup, clip

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a network's trainable parameters.

        Raises:
            ValueError: if a prefix in `rates` matches no parameter, or an option of the optimizer is not finite, or a
                learning rate not above 0.
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
        settings = [
            {"params": p, "prefix": prefix, **({"lr": self.rates[prefix]} if prefix else {})}
            for prefix, p in groups.items()
        ]
        optimizer = self.optimizer(settings)
        _check_options(optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            if "eps" in group and any(parameter.dtype == torch.float16 for parameter in group["params"]):
                group["eps"] = max(group["eps"], HALF_EPS)
        optimizer.register_load_state_dict_pre_hook(_keep_settings)
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

    def clip_gradient(self, optimizer: torch.optim.Optimizer, scale: float = 1.0, own: bool = False) -> Tensor:
        """Clip, and return the norm that the gradient had, over all processes that have parts of it.

        Args:
            optimizer: from `build`.
            scale: what the loss was multiplied by for fp16; the norm returned is without it.
            own: whether every process has its own particles.
        """
        parameters = trained(optimizer)
        norm = gradients.total_norm(parameters, own)
        if self.clip is not None:
            gradients.clip(parameters, norm, scale * self.clip)
        return norm / scale


def trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """An optimizer's parameters, in the order of its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _check_options(optimizer: torch.optim.Optimizer) -> None:
    """torch refuses most negative options, and takes an infinite one or a rate of 0."""
    for group in optimizer.param_groups:
        require("> 0", **{"optimizer.lr": group["lr"]})
        for name, value in group.items():
            if isinstance(value, float | tuple):
                require("finite", **{f"optimizer.{name}": value})


def _keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state with this optimizer's settings: what constructors take is a setting, the rest is state.

    Raises:
        ValueError: if the checkpoint's groups are of other parameters.
    """
    stored, own = state["param_groups"], optimizer.param_groups
    prefixes = [group["prefix"] for group in own]
    earlier = [group.get("prefix", "") for group in stored]
    if earlier != prefixes:
        raise ValueError(
            f"rates: the checkpoint's parameters are grouped by {earlier}, the recipe's by {prefixes}; on resuming, "
            "rates may change and their prefixes may not"
        )
    settings = {name for base in type(optimizer).__mro__ for name in inspect.signature(base.__init__).parameters}  # type: ignore[misc]
    settings = (settings | {"initial_lr"}) - {"params"}
    groups = [
        kept | {name: value for name, value in group.items() if name in settings}
        for kept, group in zip(stored, own, strict=True)
    ]
    return state | {"param_groups": groups}
