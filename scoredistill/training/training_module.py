"""The base class of Lightning modules: ticks, progress, exact resume, and checks for finite gradients."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scoredistill.distributed import is_distributed
from scoredistill.generators.generator import Generator
from scoredistill.networks.modules import first_not_finite
from scoredistill.ranges import require
from scoredistill.training.average import MovingAverage
from scoredistill.training.checkpoints import CHECKED
from scoredistill.training.optimizers import NetworkOptimizer, parameters_of
from scoredistill.training.precision import convert_batches
from scoredistill.training.randomness import generator_at
from scoredistill.training.strategies import gradients
from scoredistill.types import Batch

KEPT = "The last checkpoint, if any, is of an earlier step"
REMEDY = "Lower the learning rate, clip the gradient (clip) or the ratio (ClampRatio), or start at less noise"


class TrainingModule(LightningModule, ABC):
    """A Lightning module in which every tick is a function of the weights, the seed and the tick's number.

    A subclass implements `eval_generator`, and `training_step` with random numbers from `rng_of_tick`. Parameters whose
    names begin with `frozen` are rebuilt from the recipe and left out of checkpoints.

    Args:
        seed: seed of all random numbers in training, in [0, 2^32).
    """

    averages: nn.ModuleDict
    """Moving averages of the trained network by name."""
    evaluated: str | None
    """Name of the average that is evaluated; None: the first one, if any."""
    frozen = ""
    """Prefix of the parameters that are not trained; empty: none."""
    strategies: tuple[type[Strategy], ...] = ()
    """Supported Lightning strategies, besides a single device and ddp."""
    split_particles = False
    """Whether this process holds only its shard of the particles."""

    def __init__(self, seed: int) -> None:
        require("[0, 2^32)", seed=seed)
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # frozen parameters are not in checkpoints; on_load_checkpoint checks the rest
        self.seed = seed
        self.ticks = 0
        self.averages, self.evaluated = nn.ModuleDict(), None

    @property
    def average(self) -> MovingAverage | None:
        """The moving average that is evaluated, if any."""
        if not len(self.averages):
            return None
        return cast(MovingAverage, self.averages[self.evaluated or next(iter(self.averages))])

    @property
    @abstractmethod
    def eval_generator(self) -> Generator:
        """The generator that is evaluated."""

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        """Inside the block, `eval_generator` holds all particles on the processes that evaluate it.

        All processes must enter it.

        Yields:
            whether this process evaluates the generator.
        """
        yield True

    def setup(self, stage: str) -> None:
        """Check the strategy and configure it.

        Raises:
            ValueError: for a strategy that would not average gradients.
        """
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # Each loss of a step uses only some of the networks.
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        elif not isinstance(strategy, (SingleDeviceStrategy, *self.strategies)):
            choices = "ddp, split_particles or fsdp2" if self.strategies else "ddp"
            raise ValueError(f"trainer.strategy: {type(strategy).__name__} is not supported; choose {choices}")
        convert_batches(self.trainer.precision_plugin)

    def on_train_start(self) -> None:
        """Replace Lightning's SIGTERM handler by one that only records the signal.

        Lightning's handler communicates with the other processes. During another collective operation all of them may
        then wait forever.
        """
        if self.trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._record_sigterm)

    def _record_sigterm(self, number: int, _: object) -> None:
        connector = self.trainer._signal_connector
        launcher = self.trainer.strategy.launcher
        if launcher is not None and not connector.received_sigterm:
            launcher.kill(number)
        connector.received_sigterm = True

    def with_embeddings(self, batch: Batch) -> Batch:
        """The batch as the evaluated generator receives it, for example with embedded prompts."""
        return batch

    def decode(self, x: Tensor) -> Tensor:
        """Decode latent samples of the evaluated generator; pictures are returned unchanged."""
        return x

    @property
    def progress(self) -> float:
        """Fraction of training done, in [0, 1]."""
        steps = self.trainer.max_steps
        return 0.0 if steps <= 0 else min(self.global_step / steps, 1.0)

    def logs_this_tick(self, ticks: int = 1) -> bool:
        """Whether this tick's metrics may appear in the next logged row, which contains the latest value of each.

        For a small network, computing and logging them takes longer than the step itself.

        Args:
            ticks: number of ticks in which every network is updated, >= 1.
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its logger connector
        return every > 0 and -(self.ticks + 1) % every < ticks

    def rng_of_tick(self) -> torch.Generator:
        """The random generator of this tick; torch's global generator, which dropout uses, is seeded as well.

        Processes draw different numbers, unless they hold particles of the same batch.
        """
        rng = generator_at(self.seed, self.ticks, self.global_rank)
        torch.manual_seed(rng.initial_seed())
        return generator_at(self.seed, self.ticks) if self.split_particles else rng

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks evaluate the generator as a whole."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks evaluate the generator as a whole."""

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Samples x of the evaluated generator, decoded, with their particle and view indices if any."""
        sample = self.eval_generator(self.with_embeddings(batch), generator_at(self.seed, batch_idx, self.global_rank))
        # A plain dictionary: Lightning does not move frozen dataclasses to the CPU.
        outputs = {"x": self.decode(sample.x), "particle": sample.particle, "view": sample.view_index}
        return {name: value for name, value in outputs.items() if value is not None}

    def optimizer_at(self, index: int) -> LightningOptimizer:
        """One of the optimizers."""
        optimizers = self.optimizers()
        return optimizers[index] if isinstance(optimizers, list) else optimizers

    def backward_and_step(self, settings: NetworkOptimizer, loss: Tensor, network: str) -> Tensor:
        """One step of the first optimizer down a loss.

        Args:
            settings: settings of the optimizer.
            loss: a scalar.
            network: name of the network, for the message.

        Returns:
            norm of the gradient before clipping.

        Raises:
            FloatingPointError: if the gradient is not finite.
        """
        optimizer = self.optimizer_at(0)
        settings.prepare(optimizer.optimizer, self.global_step, self.progress)
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = self.reduce_and_clip(settings, optimizer.optimizer)
        self.require_finite_norm(norm, network, self.global_step)
        optimizer.step()
        return norm

    def reduce_and_clip(
        self, settings: NetworkOptimizer, optimizer: torch.optim.Optimizer, split: bool = False
    ) -> Tensor:
        """Average gradients over processes, unless the strategy does, and clip them.

        Args:
            settings: settings of the optimizer.
            optimizer: the optimizer, after the backward pass.
            split: whether the parameters are particles that only this process holds.

        Returns:
            norm of the gradient before clipping.
        """
        if is_distributed() and not split and not isinstance(self.trainer.strategy.model, DistributedDataParallel):
            gradients.average(parameters_of(optimizer))
        return settings.clip_gradient(optimizer, self.loss_scale, split)

    @property
    def loss_scale(self) -> float:
        """Factor by which fp16 training multiplies losses, so that small gradients do not vanish."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def _scaled(self) -> bool:
        """Whether an fp16 scaler skips steps with gradients that are not finite."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def require_finite_norm(self, norm: Tensor, network: str, step: int) -> None:
        """Stop before a step would destroy the network. An fp16 scaler skips such a step and lowers its scale.

        Raises:
            FloatingPointError: if the gradient's norm is not finite.
        """
        if not self._scaled and not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the {network}'s gradient is not finite at step {step}. {KEPT}. {REMEDY}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen parameters, and refuse diverged ones, so that the last checkpoint stays usable.

        Raises:
            FloatingPointError: if a weight, a buffer, an optimizer's state or a loss is not finite.
        """
        checkpoint["counters"] = self.counters()
        rebuilt = self._rebuilt()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if key not in rebuilt}
        self._require_not_diverged({key: checkpoint.get(key) for key in CHECKED})

    def counters(self) -> dict[str, float]:
        """Counters that a checkpoint stores."""
        counters: dict[str, float] = {"ticks": self.ticks}
        return counters | {
            f"averages/{name}": cast(MovingAverage, each).updates for name, each in self.averages.items()
        }

    def set_counters(self, counters: Mapping[str, float]) -> None:
        """Restore the counters of a checkpoint."""
        self.ticks = int(counters["ticks"])
        for name, average in self.averages.items():
            cast(MovingAverage, average).updates = int(counters[f"averages/{name}"])

    def on_train_end(self) -> None:
        """Check the weights, because the last ones may be in no checkpoint.

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
        """Restore the counters, and refuse a checkpoint of another network or loss.

        Raises:
            ValueError: if its tensors differ from those of this module in name or shape.
        """
        rebuilt = self._rebuilt()
        expected = {key: value.shape for key, value in self.state_dict().items() if key not in rebuilt}
        stored = {key: value.shape for key, value in checkpoint["state_dict"].items()}
        differing = sorted(key for key in expected.keys() | stored.keys() if expected.get(key) != stored.get(key))
        if differing:
            raise ValueError(
                f"the checkpoint does not fit the recipe: {differing[0]} is {stored.get(differing[0], 'missing')} in "
                f"the checkpoint and {expected.get(differing[0], 'missing')} in the recipe's model (and "
                f"{len(differing) - 1} more)"
            )
        self.set_counters(checkpoint["counters"])

    def _rebuilt(self) -> set[str]:
        """Names of the frozen tensors, which the recipe rebuilds, including the names in networks that share them."""
        named: dict[str, Tensor] = dict(self.named_parameters(remove_duplicate=False))
        named |= dict(self.named_buffers(remove_duplicate=False))
        frozen = {id(value) for key, value in named.items() if self.frozen and key.startswith(self.frozen)}
        return {key for key, value in named.items() if id(value) in frozen}
