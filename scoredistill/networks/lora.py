"""Low-rank adapters over a frozen network with peft, and their files in diffusers' format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from scoredistill.files import write_atomically
from scoredistill.networks.weight_files import read_safetensors
from scoredistill.ranges import require

FILE = "pytorch_lora_weights.safetensors"
"""The file name that `load_lora_weights` of diffusers' pipelines expects in a folder."""

NAME = "default"
"""peft's name of a single adapter."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class LoRA:
    """A low-rank update of the frozen weights W, in each layer whose name ends in one of the targets:

        W + (scale / rank) B A

    "LoRA: Low-Rank Adaptation of Large Language Models" (2021), arXiv:2106.09685.

    Args:
        rank: rank of the update, >= 1.
        scale: weight of the update (peft's lora_alpha), > 0; None: the rank.
        targets: last parts of the layers' names; the default is all projections of attention layers.
    """

    rank: int = 16
    scale: float | None = None
    targets: Sequence[str] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        require(">= 1", rank=self.rank)
        require("> 0", scale=self.scale)

    @property
    def alpha(self) -> float:
        """The scale, or the rank if it is None."""
        return self.rank if self.scale is None else self.scale


def sharing_copy(network: Module) -> Module:
    """A copy of the modules that shares the original's parameters and buffers.

    Args:
        network: the original.
    """
    return deepcopy(network, {id(value): value for value in chain(network.parameters(), network.buffers())})


def add_lora(network: nn.Module, lora: LoRA) -> None:
    """Add adapters to a network in place. Only the adapters are trainable afterwards, and their initial update is zero.

    Adapters over weights in half precision have single precision, so that small optimizer steps are not lost.

    Args:
        network: the network whose layers are wrapped.
        lora: rank, scale and targets.

    Raises:
        ValueError: if no layer's name ends in a target.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, _ in network.named_modules()]
    if not any(name.endswith(target) for name in names for target in lora.targets):
        raise ValueError(f"lora: no layer of {type(network).__name__} ends in {', '.join(lora.targets)}")
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    inject_adapter_in_model(config, network, NAME)
    for weight in lora_weights(network).values():
        weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))


def lora_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' weights, by their names in files.

    Args:
        network: a network with adapters.
    """
    named = network.named_parameters()
    return {name.replace(f".{NAME}.", "."): weight for name, weight in named if f".{NAME}." in name}


def save_lora(network: nn.Module, lora: LoRA, folder: str | Path) -> None:
    """Write adapters in diffusers' format, for `pipeline.load_lora_weights(folder)`.

    Args:
        network: a model of diffusers with adapters, or a module that contains one.
        lora: the adapters' settings.
        folder: the destination.

    Raises:
        ValueError: if there is no model of diffusers.
        OSError: if the file cannot be written.
    """
    from safetensors.torch import save

    model = _diffusers_model(network)
    settings = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.targets)}
    prefixed = {f"{_prefix(model)}.{key}": value for key, value in settings.items()}
    weights = {f"{_prefix(model)}.{key}": weight.detach() for key, weight in lora_weights(model).items()}
    contiguous = {key: weight.contiguous() for key, weight in weights.items()}
    content = save(contiguous, {"format": "pt", "lora_adapter_metadata": json.dumps(prefixed)})
    write_atomically(Path(folder) / FILE, lambda file: file.write(content))


def load_lora(network: nn.Module, folder: str | Path) -> None:
    """Load adapters that `save_lora`, or diffusers with the same targets and rank, has written.

    Args:
        network: see `save_lora`.
        folder: folder of the adapters' file.

    Raises:
        ValueError: if there is no file, or its layers or its rank are different.
    """
    model = _diffusers_model(network)
    weights = {f"{_prefix(model)}.{key}": weight for key, weight in lora_weights(model).items()}
    copy_tensors(weights, Path(folder) / FILE)


@torch.no_grad()
def copy_tensors(into: dict[str, nn.Parameter], path: Path) -> None:
    """Copy the tensors of a file into parameters with the same names and shapes.

    Args:
        into: parameters by their names in the file.
        path: a safetensors file.

    Raises:
        ValueError: if there is no such file, or its names or shapes are different.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path.name} in {path.parent}: use the folder that the critic was saved to")
    stored: dict[str, Tensor] = read_safetensors(path)
    shapes = [{key: tuple(value.shape) for key, value in each.items()} for each in (into, stored)]
    differing = sorted(key for key in into.keys() | stored.keys() if shapes[0].get(key) != shapes[1].get(key))
    if differing:
        first = differing[0]
        expected, actual = (each.get(first, "missing") for each in shapes)
        raise ValueError(
            f"{path} does not fit: {first} is {actual} in the file and {expected} in the network; check rank and "
            "targets"
        )
    for key, parameter in into.items():
        parameter.copy_(stored[key])


def _diffusers_model(network: nn.Module) -> nn.Module:
    from diffusers import ModelMixin

    model = next((module for module in network.modules() if isinstance(module, ModelMixin)), None)
    if model is None:
        raise ValueError(f"{type(network).__name__} has no model of diffusers, which LoRA files need")
    return model


def _prefix(model: nn.Module) -> str:
    """The name of the model's part in pipelines."""
    return "unet" if type(model).__name__.startswith("UNet") else "transformer"
