"""Low-rank adapters over a frozen network, by peft, and their files, in the format of diffusers."""

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
from scoredistill.networks.weights import read_safetensors
from scoredistill.ranges import require

FILE = "pytorch_lora_weights.safetensors"
"""The file that `load_lora_weights` of diffusers' pipelines looks for in a folder."""

NAME = "default"
"""What peft calls an adapter of which there is only one."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class LoRA:
    """W + (scale / rank) B A, with W frozen, in every layer whose name ends in one of the targets.

    LoRA: Low-Rank Adaptation of Large Language Models, 2021, arXiv:2106.09685.

    Args:
        rank: of the update, >= 1.
        scale: its weight (peft's lora_alpha), > 0; null: the rank.
        targets: ends of the layers' names; the default is every attention's projections.
    """

    rank: int = 16
    scale: float | None = None
    targets: Sequence[str] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        require(">= 1", rank=self.rank)
        require("> 0", scale=self.scale)

    @property
    def alpha(self) -> float:
        """The scale, or the rank where none is given."""
        return self.rank if self.scale is None else self.scale


def sharing_copy(network: Module) -> Module:
    """A copy whose parameters and buffers are those of the original: modules of its own, not a second set of weights.

    Args:
        network: what is copied.
    """
    return deepcopy(network, {id(value): value for value in chain(network.parameters(), network.buffers())})


def add_lora(network: nn.Module, lora: LoRA) -> None:
    """Put adapters into a network, in place; they alone are trainable afterwards. At first they change nothing.

    Adapters over weights in half precision have single precision, in which an optimizer's small steps are not lost.

    Args:
        network: whose layers are wrapped.
        lora: rank, scale and targets.

    Raises:
        ValueError: if no layer has a target's name.
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
    """The adapters' weights, under the names that they have in files.

    Args:
        network: after `add_lora`.
    """
    named = network.named_parameters()
    return {name.replace(f".{NAME}.", "."): weight for name, weight in named if f".{NAME}." in name}


def save_lora(network: nn.Module, lora: LoRA, folder: str | Path) -> None:
    """Write adapters as diffusers does: `pipeline.load_lora_weights(folder)` reads them.

    Args:
        network: a model of diffusers, or what it lies in, after `add_lora`.
        lora: by which they were added.
        folder: the destination.

    Raises:
        ValueError: if there is no model of diffusers.
        OSError: if it cannot be written; it names the file.
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
    """Read adapters that `save_lora`, or diffusers for the same targets and rank, has written.

    Args:
        network: as for `save_lora`.
        folder: where they are.

    Raises:
        ValueError: if there are none, or they are of other layers or another rank.
    """
    model = _diffusers_model(network)
    own = {f"{_prefix(model)}.{key}": weight for key, weight in lora_weights(model).items()}
    copy_tensors(own, Path(folder) / FILE)


@torch.no_grad()
def copy_tensors(into: dict[str, nn.Parameter], path: Path) -> None:
    """Fill parameters from a file that has exactly these.

    Args:
        into: parameters by their names in the file.
        path: a safetensors file.

    Raises:
        ValueError: if there is no such file, or its names or shapes are others.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path.name} in {path.parent}: give the folder that the critic was saved to")
    stored: dict[str, Tensor] = read_safetensors(path)
    shapes = [{key: tuple(value.shape) for key, value in each.items()} for each in (into, stored)]
    differing = sorted(key for key in into.keys() | stored.keys() if shapes[0].get(key) != shapes[1].get(key))
    if differing:
        first, there, here = differing[0], *(each.get(differing[0], "not there") for each in reversed(shapes))
        raise ValueError(f"{path} does not fit: {first} is {there} in the file and {here} here; check rank and targets")
    for key, parameter in into.items():
        parameter.copy_(stored[key])


def _diffusers_model(network: nn.Module) -> nn.Module:
    from diffusers import ModelMixin

    found = next((module for module in network.modules() if isinstance(module, ModelMixin)), None)
    if found is None:
        raise ValueError(f"{type(network).__name__} has no model of diffusers, whose LoRA files are written and read")
    return found


def _prefix(model: nn.Module) -> str:
    """What pipelines call a model of this class."""
    return "unet" if type(model).__name__.startswith("UNet") else "transformer"
