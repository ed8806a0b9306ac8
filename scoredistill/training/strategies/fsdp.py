"""Networks whose weights, gradients and optimiser states are shards on the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from scoredistill.training.optimizers import trained
from scoredistill.training.strategies.states import converted


class FSDP2(ModelParallelStrategy):
    """torch's `fully_shard`: every process holds 1 / P of the student, its average, the critics and their optimisers.

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
