"""The Lightning module: a distiller, driven by an update plan."""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.distiller import Distiller, Step, surrogate
from scoredistill.generators.base import Generator
from scoredistill.losses.base import ScoreDistillation
from scoredistill.teachers.base import Teacher
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import UpdatePlan
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Noised, Sample

TEACHER = "distiller.teacher."


class Distillation(LightningModule):
    """Distils a teacher into a generator.

    All randomness of a tick comes from the seed and the tick's number, so that a run that was killed and resumed ends
    in the same weights, bit for bit, as one that was not. Lightning's global_step and max_steps count generator steps.

    Args:
        generator: what is trained: particles, a NeRF, a network.
        teacher: the frozen model of p.
        loss: the objective: SDS, VSD, FDistill or a class of your own.
        guidance: how the teacher is asked: CFG or PerpNeg; null: the conditional model itself.
        timesteps: distribution of the noise time t; null: uniform on [.02, .98].
        critic_timesteps: distribution of t for training the critic; null: as timesteps.
        generator_optimizer: how the generator is optimised; null: Adam at its default rate.
        critic_optimizer: how trained critics are optimised; null: Adam at its default rate.
        plan: who is updated when.
        ema: decay of an exponential moving average of the generator, used in evaluation, in [0, 1); null: none.
        seed: of all randomness in training.
    """

    ticks: Tensor
    critic_steps: Tensor

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        loss: ScoreDistillation,
        guidance: Guidance | None = None,
        timesteps: TimestepSampler | None = None,
        critic_timesteps: TimestepSampler | None = None,
        generator_optimizer: NetworkOptimizer | None = None,
        critic_optimizer: NetworkOptimizer | None = None,
        plan: UpdatePlan | None = None,
        ema: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # the teacher is not in checkpoints; on_load_checkpoint checks the rest
        self.distiller = Distiller(generator, teacher, loss, guidance, timesteps, critic_timesteps)
        self.generator_optimizer = generator_optimizer or NetworkOptimizer()
        self.critic_optimizer = critic_optimizer or NetworkOptimizer()
        self.plan, self.seed = plan or UpdatePlan(), seed
        self.average = None if ema is None else AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.register_buffer("ticks", torch.zeros((), dtype=torch.long))
        self.register_buffer("critic_steps", torch.zeros((), dtype=torch.long))

    @property
    def evaluated(self) -> Generator:
        """The generator that is looked at: the moving average where there is one."""
        return self.distiller.generator if self.average is None else cast(Generator, self.average.module)

    @property
    def progress(self) -> float:
        """Fraction of all generator steps that are done, in [0, 1]."""
        steps = self.trainer.max_steps
        return 0.0 if steps <= 0 else min(self.global_step / steps, 1.0)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser for the generator and, where the loss trains critics, one for those."""
        optimizers = [self.generator_optimizer.build(self.distiller.generator)]
        if self.distiller.critics:
            optimizers.append(self.critic_optimizer.build(torch.nn.ModuleList(self.distiller.critics)))
        return optimizers

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One tick of the update plan."""
        tick = int(self.ticks)
        rng = generator_at(self.seed, tick, self.global_rank)
        turn = self.plan.turn(tick, bool(self.distiller.critics))
        sample = None
        if turn.generator:
            self.distiller.generator.on_progress(self.global_step, self.progress, rng)
            sample = self._update_generator(batch, rng)
        if turn.critic:
            self._update_critic(batch, sample, rng)
        self.ticks += 1

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks look at the whole generator."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: evaluation callbacks look at the whole generator."""

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Samples x of the evaluated generator, with their particle and view where it has any."""
        sample = self.evaluated(batch, generator_at(self.seed, batch_idx, self.global_rank))
        # A plain dictionary: Lightning does not move frozen dataclasses to the CPU.
        found = {"x": sample.x, "particle": sample.particle, "view": sample.view}
        return {name: value for name, value in found.items() if value is not None}

    def _optimizer(self, index: int) -> LightningOptimizer:
        optimizers = self.optimizers()
        return optimizers[index] if isinstance(optimizers, list) else optimizers

    def _update_generator(self, batch: Batch, rng: torch.Generator) -> Sample:
        optimizer = self._optimizer(0)
        self.generator_optimizer.prepare(optimizer.optimizer, self.global_step, self.progress)
        optimizer.zero_grad()
        if self.plan.accumulate == 1:
            step = self.distiller.step(batch, progress=self.progress, rng=rng)
            self.manual_backward(_with_regulariser(step.loss, step.noised.sample))
        else:
            step = self._accumulated(batch, rng)
        norm = self.generator_optimizer.clip_gradient(optimizer.optimizer)
        self._report(step, norm)
        optimizer.step()
        self.distiller.loss.observe(step.noised, step.gradient)
        if self.average is not None:
            self.average.update_parameters(self.distiller.generator)
        return step.noised.sample

    def _accumulated(self, batch: Batch, rng: torch.Generator) -> Step:
        """The objective on the whole batch, the generator's graph one micro-batch at a time.

        Samples are made twice: first without a graph, to evaluate g on all of them together, so that batch statistics
        and particle critics see the whole batch; then from the same random numbers again, to give each its share of g.
        Those are streams of their own: t and epsilon do not depend on the number of micro-batches.
        """
        parts = batch.split(self.plan.accumulate)
        seed, generator = rng.initial_seed(), self.distiller.generator
        with torch.no_grad():
            samples = [generator(part, generator_at(seed, i)) for i, part in enumerate(parts)]
        whole = Sample.cat(samples)
        noised = self.distiller.diffuse(whole, self.distiller.timesteps, progress=self.progress, rng=rng)
        gradient = self.distiller.loss.gradient(noised, self.distiller.teacher, self.distiller.guidance)
        for i, (part, g) in enumerate(zip(parts, gradient.g.split([len(s.x) for s in samples]), strict=True)):
            sample = generator(part, generator_at(seed, i))
            share = len(sample.x) / len(whole.x)
            self.manual_backward(share * _with_regulariser(surrogate(sample.x, g), sample))
        return Step(surrogate(whole.x, gradient.g), noised, gradient)

    def _update_critic(self, batch: Batch, sample: Sample | None, rng: torch.Generator) -> None:
        """A critic step, on the generator step's own samples under fresh noise where there was one in this tick."""
        optimizer = self._optimizer(1)
        self.critic_optimizer.prepare(optimizer.optimizer, int(self.critic_steps), self.progress)
        noised = None if sample is None else self._fresh_noise(sample, rng)
        loss = self.distiller.critic_loss(batch, noised=noised, progress=self.progress, rng=rng)
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = self.critic_optimizer.clip_gradient(optimizer.optimizer)
        _require_finite(norm, "critic", int(self.critic_steps))
        # Through the strategy and not the wrapped optimiser, which would count this as a generator step.
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        self.critic_steps += 1
        self.log_dict({"critic/loss": loss.detach(), "critic/gradient_norm": norm})

    def _fresh_noise(self, sample: Sample, rng: torch.Generator) -> Noised:
        return self.distiller.diffuse(sample, self.distiller.critic_timesteps, progress=self.progress, rng=rng)

    def _report(self, step: Step, norm: Tensor) -> None:
        _require_finite(norm, "generator", self.global_step)
        self.log("loss", step.loss.detach(), prog_bar=True)
        self.log("gradient_norm", norm, prog_bar=True)
        self.log_dict({f"objective/{key}": value for key, value in step.gradient.report().items()})
        self.log("objective/t", step.noised.t.mean())
        if step.noised.sample.regulariser is not None:
            self.log("regulariser", step.noised.sample.regulariser.detach())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen teacher out: it is rebuilt from the recipe."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith(TEACHER)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another generator or loss, by name.

        Raises:
            ValueError: if its tensors are not those of this module.
        """
        own = {key: value.shape for key, value in self.state_dict().items() if not key.startswith(TEACHER)}
        stored = {key: value.shape for key, value in checkpoint["state_dict"].items()}
        differing = sorted(key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key))
        if differing:
            raise ValueError(
                f"the checkpoint does not fit the recipe: {differing[0]} is {stored.get(differing[0], 'not there')} in "
                f"the checkpoint and {own.get(differing[0], 'not there')} here (and {len(differing) - 1} more)"
            )


def _with_regulariser(loss: Tensor, sample: Sample) -> Tensor:
    return loss if sample.regulariser is None else loss + sample.regulariser


def _require_finite(norm: Tensor, network: str, step: int) -> None:
    if not bool(torch.isfinite(norm)):
        raise FloatingPointError(
            f"the {network}'s gradient is not finite at step {step}; the last checkpoint is kept. Lower the learning "
            "rate, clip the ratio (ClampRatio) or start at less noise"
        )
