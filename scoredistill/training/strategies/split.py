"""Splitting of particles over processes, as a Lightning strategy."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim import Optimizer

from scoredistill.distributed import ParticleShard, gather_to_rank0
from scoredistill.training.distillation import Distillation
from scoredistill.training.strategies.gradients import converted

SPLIT = ("distiller.generator.", "averages.")
"""Prefixes of the split tensors' names."""


class SplitParticles(DDPStrategy):
    """Every process holds, renders and optimizes n / P of the n particles; trained critics are replicated.

    A step computes the same as in one process with all particles, except for the rounding of sums: all processes draw
    the same random numbers, and each keeps those of its particles. A `ParticleCritic` receives the renders of all
    particles. Checkpoints contain all particles: a run can be resumed with another number of processes, or in one.

        scoredistill fit --config recipes/gallery/diversity.yaml --trainer.strategy split_particles --trainer.devices 2
    """

    _shard: ParticleShard | None = None

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Register the name `split_particles` for trainer.strategy."""
        strategy_registry.register("split_particles", cls, description=cls.__doc__)

    def setup_environment(self) -> None:
        """Initialize the process group, and split the generator before it is moved to a device."""
        super().setup_environment()
        module = self.lightning_module
        if module is None or module.trainer.state.fn != TrainerFn.FITTING:
            return
        if not isinstance(module, Distillation) or module.distiller.generator.particles is None:
            raise ValueError("trainer.strategy: split_particles is for generators of particles; use ddp or fsdp2")
        if module.distiller.discriminators:
            raise ValueError("trainer.strategy: split_particles does not go with a discriminator; use ddp")
        self._shard = ParticleShard(
            module.distiller.shard.draw_on_device,
            process=self.global_rank,
            processes=self.world_size,
            particles=module.distiller.generator.particles,
        )
        module.split(self._shard)

    def setup(self, trainer: Trainer) -> None:
        """Copy the first process's critics to all processes."""
        super().setup(trainer)
        if self._shard is not None and isinstance(self.lightning_module, Distillation):
            for parameter in self.lightning_module.distiller.loss.parameters():
                dist.broadcast(parameter.data, 0)

    def configure_ddp(self) -> None:
        """Nothing: the module averages the critics' gradients, and those of particles are not averaged."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """State of all particles, on the first process."""
        state = super().lightning_module_state_dict()
        if self._shard is None:
            return state
        return {
            name: gather_to_rank0(value) if _is_split(name) and value.ndim else value for name, value in state.items()
        }

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State of all particles, on the first process."""
        state = super().optimizer_state(optimizer)
        if self._shard is None or optimizer is not self.optimizers[0]:
            return state
        return converted(state, lambda _, value: gather_to_rank0(value))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of all particles and keep this process's shard."""
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        shard = self._shard
        if shard is None:
            return checkpoint
        state, optimizers = checkpoint["state_dict"], checkpoint["optimizer_states"]
        split = {name for name, value in state.items() if _is_split(name) and value.ndim}
        checkpoint["state_dict"] = {n: shard.own(value).clone() if n in split else value for n, value in state.items()}
        checkpoint["optimizer_states"] = [
            converted(optimizers[0], lambda _, value: shard.own(value).clone()),
            *optimizers[1:],
        ]
        return checkpoint


def _is_split(name: str) -> bool:
    return name.startswith(SPLIT)
