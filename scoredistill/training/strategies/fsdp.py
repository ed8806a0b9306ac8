"""Networks sharded over processes: which ones, where they are cut, and Lightning's strategy for it."""

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
from scoredistill.training.optimizers import trained
from scoredistill.training.strategies.states import converted

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


class FSDP2(ModelParallelStrategy):
    """torch's `fully_shard`: every process holds 1 / P of the student, its average, the critics and their optimizers.

    A network's blocks are put together one by one when they are needed. What shares the teacher's weights (LoRA) and
    small heads are copies, as under ddp. Checkpoints hold whole tensors, written by the first process: a run goes on
    with another number of processes, under ddp, or with one.

    PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023, arXiv:2304.11277.

        scoredistill fit --config recipes/f_distill/digits.yaml --trainer.strategy fsdp2 --trainer.devices 8
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Its name, as a value of trainer.strategy."""
        strategy_registry.register("fsdp2", cls, description=cls.__doc__)

    def setup_environment(self) -> None:
        """Join the processes: all of them are data-parallel."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning asks `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, on the first process."""
        assert self.lightning_module is not None
        return {name: self._whole(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole tensors, on the first process."""
        return converted(optimizer.state_dict(), lambda _, value: self._whole(value))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """A checkpoint of whole tensors, as every other strategy has it."""
        torch.cuda.empty_cache()
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the shards out of whole tensors."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {n: _like(own[n], value) if n in own else value for n, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the shards out of whole tensors."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(converted(state, partial(_shard_of, trained(optimizer))))

    def _whole(self, value: Tensor) -> Tensor | None:
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()
        return whole.cpu() if self.is_global_zero else None


def _shard_of(parameters: Sequence[Tensor], number: int, value: Tensor) -> Tensor:
    return _like(parameters[number], value)


def _like(own: Tensor, value: Tensor) -> Tensor:
    """A whole tensor laid out as this process's own is."""
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
