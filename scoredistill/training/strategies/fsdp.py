"""Sharding of networks over processes, as a Lightning strategy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser
from scoredistill.training.optimizers import parameters_of
from scoredistill.training.strategies.gradients import converted

SMALL = 2**16
"""Number of parameters below which a block is sharded together with the rest of its network."""


def shard(parts: Iterable[nn.Module], teacher: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the networks of all denoisers, except those that share weights with the teacher.

    Args:
        parts: the trained modules and their moving average.
        teacher: the teacher, whose weights are not sharded.
        mesh: one-dimensional mesh of the processes.

    Raises:
        ValueError: if a network cannot be sharded, or torch is too old to do it on a CPU.
    """
    if mesh.device_type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise ValueError(f"trainer.strategy: torch {torch.__version__} shards only on GPUs: use ddp, or a newer torch")
    known = {id(parameter) for parameter in teacher.parameters()}
    for part in parts:
        for denoiser in part.modules():
            if isinstance(denoiser, Denoiser) and known.isdisjoint(map(id, denoiser.parameters())):
                _shard(denoiser.network, mesh)
                known.update(map(id, denoiser.parameters()))


def _shard(network: Backbone, mesh: DeviceMesh) -> None:
    if not network.shardable:
        raise ValueError(f"trainer.strategy: {type(network).__name__} cannot be sharded by fsdp2: use ddp")
    # The warning concerns in-place changes of a network's output, which never happen here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for part in (*blocks(network), network):
        fully_shard(part, mesh=mesh)
    register_fsdp_forward_method(network, "features_of")


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of a network's module lists, without nested lists and small members."""
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


class FSDP2(ModelParallelStrategy):
    """torch's `fully_shard`: every process holds 1 / P of the student, its average, the critics and their optimizers.

    The blocks of a network are gathered one by one when they are used. Networks that share the teacher's weights (LoRA)
    and small heads are replicated, as under ddp. Checkpoints contain full tensors, written by the first process: a run
    can be resumed with another number of processes, under ddp, or in one process.

    "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (2023), arXiv:2304.11277.

        scoredistill fit --config recipes/f_distill/digits.yaml --trainer.strategy fsdp2 --trainer.devices 8
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Register the name `fsdp2` for trainer.strategy."""
        strategy_registry.register("fsdp2", cls, description=cls.__doc__)

    def setup_environment(self) -> None:
        """Initialize the process group, in which all processes are data-parallel."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning calls `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Full tensors on the first process, None on the others."""
        assert self.lightning_module is not None
        return {name: self._full(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Full tensors on the first process, None on the others."""
        return converted(optimizer.state_dict(), lambda _, value: self._full(value))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of full tensors, as all other strategies do."""
        torch.cuda.empty_cache()
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load full tensors into the shards."""
        assert self.lightning_module is not None
        local = self.lightning_module.state_dict()
        state = {n: _like(local[n], value) if n in local else value for n, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load full tensors into the shards."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(converted(state, partial(_shard_of, parameters_of(optimizer))))

    def _full(self, value: Tensor) -> Tensor | None:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if self.is_global_zero else None


def _shard_of(parameters: Sequence[Tensor], number: int, value: Tensor) -> Tensor:
    return _like(parameters[number], value)


def _like(local: Tensor, value: Tensor) -> Tensor:
    """Distribute a full tensor in the layout of this process's tensor."""
    if not isinstance(local, DTensor):
        return value
    return distribute_tensor(value.to(local.device), local.device_mesh, local.placements)
