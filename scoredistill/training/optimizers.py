"""Optimizer, learning rates, gradient clipping and moving average of one network."""

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
"""Square root of the smallest positive float16. The square of a smaller gradient is 0, and Adam divides by eps."""


class NetworkOptimizer:
    """An optimizer with its learning-rate schedule and gradient clipping, for one network.

    The schedule is a function of progress alone and has no state. A checkpoint restores the optimizer's state, such as
    its moments; rates, betas and other settings are always those given here. In float16 (`trainer.precision 16-true`)
    an eps below 2^-12 is raised to 2^-12, because torch's 1e-8 underflows to 0 and the first step would be 0 / 0.

    Args:
        optimizer: a class of torch.optim with its settings, its learning rate > 0.
        rates: learning rates by prefix of the parameter name, > 0. They replace the optimizer's rate; the longest
            matching prefix is used.
        factor: factor of all learning rates, a constant or a `Piecewise` over progress, >= 0, and not always 0.
        warmup: number of steps over which the rates grow linearly from zero, >= 0.
        clip: largest norm of the gradient in all parameters, > 0; None: no clipping.

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
            raise ValueError("factor is 0 at all times, so nothing would be trained: set it above 0")
        self.optimizer = optimizer
        self.rates = dict(rates or {})
        self.factor = factor
        self.warmup = warmup
        self.clip = clip

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a network's trainable parameters.

        Raises:
            ValueError: if a prefix in `rates` matches no parameter, an option of the optimizer is not finite, or a
                learning rate is not above 0.
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
        """Set the learning rates of the next step.

        Args:
            optimizer: from `build`.
            step: number of steps of this network so far.
            progress: fraction of training done.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warm * at_progress(self.factor, progress)

    def clip_gradient(self, optimizer: torch.optim.Optimizer, scale: float = 1.0, split: bool = False) -> Tensor:
        """Clip the gradient.

        Args:
            optimizer: from `build`.
            scale: factor of the loss in fp16 training.
            split: whether the parameters are particles split over processes.

        Returns:
            norm of the gradient before clipping, over all processes and without the scale.
        """
        parameters = parameters_of(optimizer)
        norm = gradients.total_norm(parameters, split)
        if self.clip is not None:
            gradients.clip(parameters, norm, scale * self.clip)
        return norm / scale


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """An optimizer's parameters, in the order of its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _check_options(optimizer: torch.optim.Optimizer) -> None:
    """Check the options that torch accepts: infinite ones, and a learning rate of 0."""
    for group in optimizer.param_groups:
        require("> 0", **{"optimizer.lr": group["lr"]})
        for name, value in group.items():
            if isinstance(value, float | tuple):
                require("finite", **{f"optimizer.{name}": value})


def _keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Combine a checkpoint's state with this optimizer's settings, which are the constructor's parameters.

    Raises:
        ValueError: if the checkpoint's groups have other parameters.
    """
    stored = state["param_groups"]
    current = optimizer.param_groups
    prefixes = [group["prefix"] for group in current]
    earlier = [group.get("prefix", "") for group in stored]
    if earlier != prefixes:
        raise ValueError(
            f"rates: the checkpoint's parameters are grouped by {earlier}, the recipe's by {prefixes}; a resumed run "
            "may change rates but not their prefixes"
        )
    settings = {name for base in type(optimizer).__mro__ for name in inspect.signature(base.__init__).parameters}  # type: ignore[misc]
    settings = (settings | {"initial_lr"}) - {"params"}
    groups = [
        kept | {name: value for name, value in group.items() if name in settings}
        for kept, group in zip(stored, current, strict=True)
    ]
    return state | {"param_groups": groups}
