"""Checks that every trainable parameter of an objective is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.divergences import Divergence
from scoredistill.ratios.ratio import DensityRatio

NON_MODULES = (TimeWeight, Divergence, Guidance, TimestepSampler)
"""Parts that are not modules and whose attributes are searched for modules."""


def require_trained(loss: nn.Module, trained: Iterable[nn.Module]) -> None:
    """Raise an error for parameters that require a gradient and belong to no `TrainedPart`.

    Args:
        loss: the objective, after `bind`.
        trained: its trained parts.

    Raises:
        ValueError: if a parameter requires a gradient and is in none of them.
    """
    known = {id(parameter) for module in trained for parameter in module.parameters()}
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad and id(parameter) not in known:
            raise ValueError(
                f"{type(loss).__name__}: {name} would never be trained: put it into a TrainedPart, whose "
                "training_error(diffused, teacher) is minimized beside the generator, or freeze it by "
                "requires_grad_(False)"
            )


def require_registered(owner: object) -> None:
    """Raise an error for modules in a plain list, tuple or dictionary, which PyTorch does not register.

    Frozen modules are allowed there, which keeps them out of checkpoints.

    Args:
        owner: a module, or a weight, divergence, guidance or sampler of times.

    Raises:
        ValueError: if a critic, a ratio or a module with trainable parameters is among them.
    """
    holders: list[object] = list(owner.modules()) if isinstance(owner, nn.Module) else [owner]
    found = {id(holder) for holder in holders}
    found |= {id(parameter) for parameter in owner.parameters()} if isinstance(owner, nn.Module) else set()
    for holder in holders:
        for name, hidden in _hidden(holder):
            if id(hidden) in found:
                continue
            trainable = (p for p in hidden.parameters() if p.requires_grad and id(p) not in found)
            if isinstance(hidden, (Critic, DensityRatio)) or next(trainable, None) is not None:
                raise ValueError(
                    f"{type(holder).__name__}.{name} holds a {type(hidden).__name__} that is not registered, and so "
                    "neither trained nor saved nor moved to a device: assign it as an attribute of a module, or use "
                    "torch.nn.ModuleList or torch.nn.ModuleDict"
                )


def _hidden(holder: object) -> Iterator[tuple[str, nn.Module]]:
    """Modules in the holder's plain attributes, each with the attribute's name."""
    for name, value in vars(holder).items():
        if name != "_modules":
            yield from ((name, module) for module in _modules_in(value))


def _modules_in(value: object) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _modules_in(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _modules_in(each)
    elif isinstance(value, NON_MODULES):
        yield from (module for _, module in _hidden(value))
