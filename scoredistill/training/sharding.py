"""Which networks are sharded over processes, and where they are cut into blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from scoredistill.networks.base import Backbone
from scoredistill.networks.denoiser import Denoiser

SMALL = 2**16
"""Parameters below which a block is put together with the rest of its network."""


def shard(parts: Iterable[nn.Module], teacher: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the denoisers' networks in some modules, but not those that share weights with the teacher.

    Args:
        parts: that are trained, and their moving average.
        teacher: whose weights stay whole.
        mesh: of one dimension, the processes.

    Raises:
        ValueError: if a network cannot be sharded, or torch is too old to do it on a CPU.
    """
    if mesh.device_type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise ValueError(f"trainer.strategy: torch {torch.__version__} shards on GPUs alone: use ddp, or a newer torch")
    known = {id(parameter) for parameter in teacher.parameters()}
    for part in parts:
        for denoiser in part.modules():
            if isinstance(denoiser, Denoiser) and known.isdisjoint(map(id, denoiser.parameters())):
                _shard(denoiser.network, mesh)
                known.update(map(id, denoiser.parameters()))


def _shard(network: Backbone, mesh: DeviceMesh) -> None:
    if not network.shardable:
        raise ValueError(f"trainer.strategy: {type(network).__name__} cannot be sharded by fsdp2: use ddp")
    # torch's warning is of changes in place to what a network returns, which nobody makes.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for part in (*blocks(network), network):
        fully_shard(part, mesh=mesh)
    register_fsdp_forward_method(network, "features")


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of a network's lists of modules, lists themselves and small ones left out."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            members = child if isinstance(child, nn.ModuleList) else child.values()
            for member in members:
                if isinstance(member, nn.ModuleList | nn.ModuleDict):
                    yield from blocks(nn.ModuleList([member]))
                elif sum(parameter.numel() for parameter in member.parameters()) >= SMALL:
                    yield member
        else:
            yield from blocks(child)
