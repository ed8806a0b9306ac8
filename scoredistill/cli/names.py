"""The classes that recipes may name without their dotted path."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import torch

NOT_FOR_RECIPES = {"__main__", "cli", "recipe_library", "recipes_command", "start_up", "studies", "version"}


def import_public_modules() -> None:
    """Import what recipes may name: jsonargparse knows a short name once its class has been imported."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent.parent)]):
        if module.name not in NOT_FOR_RECIPES:
            importlib.import_module(f"scoredistill.{module.name}")
    importlib.import_module("scoredistill.training.callbacks")


def known_classes(optimizers: bool = False) -> dict[str, type]:
    """Classes by their short names: ours, or torch's optimisers."""
    if optimizers:
        return {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    modules = [module for name, module in sys.modules.items() if name.startswith("scoredistill.")]
    return {
        name: value
        for module in modules
        for name in getattr(module, "__all__", ())
        if inspect.isclass(value := getattr(module, name, None))
    }


def parameters_of(class_path: str) -> list[str]:
    """Names of a class's constructor parameters, by its short or dotted name; empty if it is not known."""
    name = class_path.rpartition(".")[2]
    known = known_classes().get(name) or known_classes(optimizers=True).get(name)
    if known is None:
        return []
    names: list[str] = []
    for base in known.__mro__:  # a constructor that hands **kwargs on has its bases' parameters too
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [name for name in dict.fromkeys(names) if name not in ("self", "params")]
