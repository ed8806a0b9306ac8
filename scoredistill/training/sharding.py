"""Which networks are sharded over processes, and where they are cut into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    """
    known = {id(parameter) for parameter in teacher.parameters()}
    for part in parts:
        for denoiser in part.modules():
            if isinstance(denoiser, Denoiser) and known.isdisjoint(map(id, denoiser.parameters())):
                _shard(denoiser.network, mesh)
                known.update(map(id, denoiser.parameters()))


def _shard(network: Backbone, mesh: DeviceMesh) -> None:
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
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
