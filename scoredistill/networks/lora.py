"""Low-rank adapters over a frozen network, by peft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class LoRA:
    """W + (scale / rank) B A, with W frozen, in every layer whose name ends in one of the targets.

    LoRA: Low-Rank Adaptation of Large Language Models, 2021, arXiv:2106.09685.

    Args:
        rank: of the update, >= 1.
        scale: its weight (peft's lora_alpha); null: the rank.
        targets: ends of the layers' names; the default is every attention's projections.
    """

    rank: int = 16
    scale: float | None = None
    targets: Sequence[str] = ("to_q", "to_k", "to_v", "to_out.0")


def add_lora(network: nn.Module, lora: LoRA) -> None:
    """Put adapters into a network, in place; they alone are trainable afterwards. At first they change nothing.

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
    scale = lora.rank if lora.scale is None else lora.scale
    config = LoraConfig(r=lora.rank, lora_alpha=scale, target_modules=list(lora.targets))  # type: ignore[arg-type]
    inject_adapter_in_model(config, network)
