"""What every training shares: ticks, progress, exact resume, and gradients that are finite."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from scoredistill.distributed import is_distributed
from scoredistill.generators.generator import Generator
from scoredistill.networks.finite import first_not_finite
from scoredistill.ranges import require
from scoredistill.training.average import MovingAverage
from scoredistill.training.checkpoints import LOOKED_AT
from scoredistill.training.optimizers import NetworkOptimizer, trained
from scoredistill.training.precision import convert_batches
from scoredistill.training.randomness import generator_at
from scoredistill.training.strategies import gradients
from scoredistill.types import Batch

KEPT = "The last checkpoint, if there is one, is of an earlier step"
REMEDY = "Lower the learning rate, clip the gradient (clip) or the ratio (ClampRatio), or start at less noise"


class TrainingModule(LightningModule, ABC):
    """A module whose every tick is a function of its weights, the seed and the tick's number.

    A subclass implements `eval_generator`, and `training_step` with the numbers of `rng_of_tick`. Parameters whose
    names begin with `frozen` are rebuilt from the recipe and left out of checkpoints.

    Args:
        seed: of all randomness in training, in [0, 2^32).
    """

    average: MovingAverage | None
    """The moving average of what is trained, where there is one."""
    frozen = ""
    """Prefix of the parameters that are never trained."""
    strategies: tuple[type[Strategy], ...] = ()
    """Lightning's strategies that it can be trained by, beside a single device and ddp."""
    split_particles = False
    """Whether this process holds a share of the particles only."""

    def __init__(self, seed: int) -> None:
        require("[0, 2^32)", seed=seed)
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # what is frozen is not in checkpoints; on_load_checkpoint checks the rest
        self.seed = seed
        self.ticks = 0
        self.average = None

    @property
    @abstractmethod
    def eval_generator(self) -> Generator:
        """The generator that is looked at."""

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        """Inside the block `eval_generator` holds all particles; it says whether this process is to look at them.

        All processes have to come here.
        """
        yield True

    def setup(self, stage: str) -> None:
        """Know how several processes work together.

        Raises:
            ValueError: for a strategy that would leave gradients apart.
        """
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # A step's several losses are of different networks each.
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        elif not isinstance(strategy, (SingleDeviceStrategy, *self.strategies)):
            choices = "ddp, split_particles or fsdp2" if self.strategies else "ddp"
            raise ValueError(f"trainer.strategy: {type(strategy).__name__} is not known here; choose {choices}")
        convert_batches(self.trainer.precision_plugin)

    def on_train_start(self) -> None:
        """Let SIGTERM only be noted: Lightning's own handler sends a message to the other processes, whatever they are
        saying to each other at that moment, and all of them may wait for ever.
        """
        if self.trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note_the_end)

    def _note_the_end(self, number: int, _: object) -> None:
        known, launcher = self.trainer._signal_connector, self.trainer.strategy.launcher
        if launcher is not None and not known.received_sigterm:
            launcher.kill(number)
        known.received_sigterm = True

    def with_embeddings(self, batch: Batch) -> Batch:
        """A batch as the evaluated generator wants it, with prompts as embeddings for example."""
        return batch

    def decode(self, x: Tensor) -> Tensor:
        """Samples of the evaluated generator as pictures, where they are latents."""
        return x

    @property
    def progress(self) -> float:
        """Fraction of all steps that are done, in [0, 1]."""
        steps = self.trainer.max_steps
        return 0.0 if steps <= 0 else min(self.global_step / steps, 1.0)

    def reports(self, ticks: int = 1) -> bool:
        """Whether this tick's metrics can be in the log's next line, which shows the latest of each.

        Computing and logging them takes longer than a small network's step.

        Args:
            ticks: in which every network has its turn, >= 1.
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its logger connector
        return every > 0 and -(self.ticks + 1) % every < ticks

    def rng_of_tick(self) -> torch.Generator:
        """The tick's own random numbers; torch's global ones, which dropout in networks draws from, are the process's.

        Processes draw different numbers, but where they hold the particles of one batch.
        """
        own = generator_at(self.seed, self.ticks, self.global_rank)
        torch.manual_seed(own.initial_seed())
        return generator_at(self.seed, self.ticks) if self.split_particles else own

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks look at the whole generator."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks look at the whole generator."""

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Samples x of the evaluated generator, as pictures, with their particle and view where it has any."""
        sample = self.eval_generator(self.with_embeddings(batch), generator_at(self.seed, batch_idx, self.global_rank))
        # A plain dictionary: Lightning does not move frozen dataclasses to the CPU.
        found = {"x": self.decode(sample.x), "particle": sample.particle, "view": sample.view_index}
        return {name: value for name, value in found.items() if value is not None}

    def optimizer_at(self, index: int) -> LightningOptimizer:
        """One of the optimizers."""
        optimizers = self.optimizers()
        return optimizers[index] if isinstance(optimizers, list) else optimizers

    def backward_and_step(self, settings: NetworkOptimizer, loss: Tensor, network: str) -> Tensor:
        """One step of the first optimizer down a loss.

        Args:
            settings: of the optimizer.
            loss: a scalar.
            network: its name, for the message.

        Returns:
            the norm that the gradient had.

        Raises:
            FloatingPointError: if the gradient is not finite.
        """
        optimizer = self.optimizer_at(0)
        settings.prepare(optimizer.optimizer, self.global_step, self.progress)
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = self.reduce_and_clip(settings, optimizer.optimizer)
        self.require_finite(norm, network, self.global_step)
        optimizer.step()
        return norm

    def reduce_and_clip(
        self, settings: NetworkOptimizer, optimizer: torch.optim.Optimizer, own: bool = False
    ) -> Tensor:
        """Average over processes what no strategy averages, and clip: the norm that the gradient had.

        Args:
            settings: of the optimizer.
            optimizer: whose parameters' gradients are there.
            own: whether they are this process's own particles.
        """
        if is_distributed() and not own and not isinstance(self.trainer.strategy.model, DistributedDataParallel):
            gradients.average(trained(optimizer))
        return settings.clip_gradient(optimizer, self.loss_scale, own)

    @property
    def loss_scale(self) -> float:
        """What fp16 training multiplies losses by, so that small gradients do not vanish."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def _scaled(self) -> bool:
        """Whether fp16's scaler skips steps that are not finite."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def require_finite(self, norm: Tensor, network: str, step: int) -> None:
        """Stop before a network is lost; fp16's scaler skips such a step itself, and scales less from then on.

        Raises:
            FloatingPointError: if the norm of a network's gradient is not finite.
        """
        if not self._scaled and not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the {network}'s gradient is not finite at step {step}. {KEPT}. {REMEDY}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen, and refuse what has diverged, so that the last checkpoint stays a good one.

        Raises:
            FloatingPointError: if a weight, a buffer, an optimizer's state or a loss is not finite.
        """
        checkpoint["counters"] = self.counters()
        rebuilt = self._rebuilt()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if key not in rebuilt}
        self._require_not_diverged({key: checkpoint.get(key) for key in LOOKED_AT})

    def counters(self) -> dict[str, float]:
        """What is counted, as a checkpoint keeps it."""
        counters: dict[str, float] = {"ticks": self.ticks}
        return counters if self.average is None else counters | {"updates": self.average.updates}

    def set_counters(self, counters: Mapping[str, float]) -> None:
        """Go on from what a checkpoint has counted."""
        self.ticks = int(counters["ticks"])
        if self.average is not None:
            self.average.updates = int(counters["updates"])

    def on_train_end(self) -> None:
        """Look at the weights, where no checkpoint was written of them either.

        Raises:
            FloatingPointError: if a weight, a buffer, an optimizer's state or a loss is not finite.
        """
        rebuilt = self._rebuilt()
        state = {key: value for key, value in self.state_dict().items() if key not in rebuilt}
        optimizers = [optimizer.state_dict()["state"] for optimizer in self.trainer.optimizers]
        self._require_not_diverged({"state_dict": state, "optimizer_states": optimizers})

    def _require_not_diverged(self, state: Mapping[str, Any]) -> None:
        metrics = {} if self._scaled else self.trainer.callback_metrics
        losses = {name: value for name, value in metrics.items() if name.split("/")[-1] in ("loss", "error")}
        lost = first_not_finite(state) or first_not_finite(losses)
        if lost is not None:
            raise FloatingPointError(
                f"{lost} is not finite at step {self.global_step}: training has diverged. {KEPT}. {REMEDY}"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the counters, and refuse a checkpoint of another network or loss, by name.

        Raises:
            ValueError: if its tensors are not those of this module.
        """
        rebuilt = self._rebuilt()
        own = {key: value.shape for key, value in self.state_dict().items() if key not in rebuilt}
        stored = {key: value.shape for key, value in checkpoint["state_dict"].items()}
        differing = sorted(key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key))
        if differing:
            raise ValueError(
                f"the checkpoint does not fit the recipe: {differing[0]} is {stored.get(differing[0], 'not there')} in "
                f"the checkpoint and {own.get(differing[0], 'not there')} here (and {len(differing) - 1} more)"
            )
        self.set_counters(checkpoint["counters"])

    def _rebuilt(self) -> set[str]:
        """Names of what the recipe rebuilds: frozen tensors, under all the names of the networks that share them."""
        named: dict[str, Tensor] = dict(self.named_parameters(remove_duplicate=False))
        named |= dict(self.named_buffers(remove_duplicate=False))
        frozen = {id(value) for key, value in named.items() if self.frozen and key.startswith(self.frozen)}
        return {key for key, value in named.items() if id(value) in frozen}
