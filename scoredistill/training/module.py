"""The Lightning module: a distiller, driven by an update plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from scoredistill.critics.trained import TrainedCritic, reuse_forward
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.timesteps import TimeBins, TimestepSampler
from scoredistill.distiller import Distiller, Step, surrogate
from scoredistill.distributed import BatchShard, ParticleShard, is_distributed
from scoredistill.generators.generator import Generator
from scoredistill.losses.objective import Objective
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.training.average import MovingAverage
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import UpdatePlan
from scoredistill.training.randomness import generator_at
from scoredistill.training.strategies.fsdp import FSDP2, shard
from scoredistill.training.strategies.whole import Whole
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Diffused, Sample, Shard


def accumulated(module: Distillation, batch: Batch, rng: torch.Generator) -> Step:
    """The objective on the whole batch, the generator's graph one micro-batch at a time.

    Samples are made twice: first without a graph, to evaluate g on all of them together, so that batch statistics and
    particle critics see the whole batch; then from the same random numbers again, to give each its share of g. Those
    are a stream of their own, so that nothing random depends on the number of micro-batches.

    Args:
        module: whose generator gets the gradient.
        batch: what to generate.
        rng: of the tick.
    """
    distiller, parts = module.distiller, batch.split(module.plan.accumulate)
    seed, generate = rng.initial_seed(), distiller.generate
    with torch.no_grad():
        samples = [generate(part, generator_at(seed, 0)) for part in parts]
    whole = Sample.cat(samples)
    # In the order of an unsplit batch, particle by particle, so that each sample gets the same t and epsilon.
    none = torch.zeros(len(whole.x), device=whole.x.device)
    order = torch.argsort(none if whole.particle is None else whole.particle, stable=True)
    whole = whole[order]
    diffused = distiller.diffuse(whole, distiller.timesteps, progress=module.progress, rng=rng)
    gradient = distiller.loss.gradient(diffused, distiller.teacher, distiller.guidance)
    rows = [len(sample.x) for sample in samples]
    gradients = (_parts(each, order, rows) for each in (gradient.g, gradient.picture))
    for part, g, picture in zip(parts, *gradients, strict=True):
        sample = generate(part, generator_at(seed, 0))
        share = module.share_of_batch * len(sample.x) / len(whole.x)
        module.manual_backward(share * with_regularizer(surrogate(sample, g, picture), sample))
    return Step(surrogate(whole, gradient.g, gradient.picture), diffused, gradient)


def _parts(g: Tensor | None, order: Tensor, rows: Sequence[int]) -> Sequence[Any]:
    """A gradient's rows, brought back into the order of the micro-batches, as a tensor for each."""
    return [None] * len(rows) if g is None else torch.empty_like(g).index_copy(0, order, g).split(list(rows))


def with_regularizer(loss: Tensor, sample: Sample) -> Tensor:
    """The loss and what the generator puts on itself."""
    return loss if sample.regularizer is None else loss + sample.regularizer


def report_step(module: LightningModule, step: Step, norm: Tensor) -> None:
    """A generator step.

    Args:
        module: whose log it is.
        step: what was evaluated.
        norm: of the whole gradient in the generator's parameters.
    """
    module.log_dict({"loss": step.loss.detach(), "gradient_norm": norm}, prog_bar=True, sync_dist=True)
    metrics = {f"objective/{key}": value for key, value in step.gradient.report().items()}
    metrics["objective/t"] = step.diffused.t.mean()
    if step.diffused.sample.regularizer is not None:
        metrics["regularizer"] = step.diffused.sample.regularizer.detach()
    module.log_dict(metrics, sync_dist=True)


def report_critic(
    module: LightningModule, name: str, error: Tensor, norm: Tensor, diffused: Diffused, levels: TimeBins
) -> None:
    """A step of a critic or a discriminator, by noise level too: level_0 is the noisiest part of the times.

    Args:
        module: whose log it is.
        name: critic or discriminator.
        error: (B,) of each sample.
        norm: of the whole gradient.
        diffused: the samples.
        levels: of noise; a level that no sample has is not reported, and so each process has its own.
    """
    module.log_dict({f"{name}/loss": error.mean(), f"{name}/gradient_norm": norm}, sync_dist=True)
    means = levels.means(error, diffused.t, diffused.schedule)
    module.log_dict({f"{name}/loss/level_{level}": mean for level, mean in means.items()})


LEVELS = 4
"""Noise levels by which the losses of critics and discriminators are told apart in the logs."""


class Distillation(TrainingModule):
    """Distills a teacher into a generator.

    All randomness of a tick comes from the seed and the tick's number, so that a run that was killed and resumed ends
    in the same weights, bit for bit, as one that was not. Lightning's global_step and max_steps count generator steps.

    Args:
        generator: what is trained: particles, a NeRF, a network.
        teacher: the frozen model of p.
        loss: the objective: SDS, VSD, FDistill, CSD, DDS or a class of your own.
        guidance: how the teacher is asked: CFG or PerpNeg; null: the conditional model itself.
        timesteps: distribution of the noise time t; null: uniform on [.02, .98].
        critic_timesteps: distribution of t for training the critic; null: as timesteps.
        generator_optimizer: how the generator is optimized; null: Adam at its default rate.
        critic_optimizer: how trained critics are optimized; null: Adam at its default rate.
        discriminator_optimizer: how discriminators are optimized; null: Adam at its default rate.
        plan: who is updated when.
        ema: decay of an exponential moving average of the generator, used in evaluation, in [0, 1); null: none.
        noise_on: where noise is drawn: cpu, the same numbers on every device, or device, which is quicker.
        seed: of all randomness in training, in [0, 2^32).
    """

    frozen = "distiller.teacher."
    strategies = (FSDP2,)

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        loss: Objective,
        guidance: Guidance | None = None,
        timesteps: TimestepSampler | None = None,
        critic_timesteps: TimestepSampler | None = None,
        generator_optimizer: NetworkOptimizer | None = None,
        critic_optimizer: NetworkOptimizer | None = None,
        discriminator_optimizer: NetworkOptimizer | None = None,
        plan: UpdatePlan | None = None,
        ema: float | None = None,
        noise_on: Literal["cpu", "device"] = "cpu",
        seed: int = 0,
    ) -> None:
        require("[0, 1)", ema=ema)
        require("[0, 2^32)", seed=seed)
        super().__init__(seed)
        self.distiller = Distiller(generator, teacher, loss, guidance, timesteps, critic_timesteps)
        self.distiller.shard = Shard(draw_on_device=noise_on == "device")
        self.generator_optimizer = generator_optimizer or NetworkOptimizer()
        self.critic_optimizer = critic_optimizer or NetworkOptimizer()
        self.discriminator_optimizer = discriminator_optimizer or NetworkOptimizer()
        self.levels = TimeBins.quantiles(self.distiller.critic_timesteps, teacher.schedule, LEVELS)
        self.plan = plan or UpdatePlan()
        self.average = None if ema is None else MovingAverage(generator, ema)
        self.critic_steps = 0
        self._whole: Whole | None = None
        self._sharded = False

    @property
    def eval_generator(self) -> Generator:
        """The generator that is looked at: the moving average where there is one."""
        if self._whole is not None and self._whole.shown is not None:
            return self._whole.shown
        return self.distiller.generator if self.average is None else cast(Generator, self.average.module)

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        if self._whole is None:
            yield True
            return
        with self._whole.of(self.eval_generator) as shows:
            yield shows

    def split(self, shard: ParticleShard) -> None:
        """Keep one process's shard of the particles; the first one can still look at all of them (`gathered`).

        Args:
            shard: of this process.

        Raises:
            ValueError: if the generator cannot be split.
        """
        whole = Whole(self.eval_generator, shard.process == 0)
        self.distiller.generator.keep_particles(shard.first, shard.held)
        if self.average is not None:
            cast(Generator, self.average.module).keep_particles(shard.first, shard.held)
        self._whole, self.distiller.shard = whole, shard

    @property
    def split_particles(self) -> bool:  # type: ignore[override]
        """Whether this process holds a share of the particles only."""
        return self._whole is not None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if is_distributed() and self._whole is None:
            self.distiller.shard = BatchShard(self.distiller.shard.draw_on_device)

    def configure_model(self) -> None:
        """Shard the networks, where the strategy has a mesh of processes."""
        if self.device_mesh is None or self._sharded:
            return
        averaged = [] if self.average is None else [self.average]
        distiller = self.distiller
        shard([distiller.generator, *averaged, distiller.loss], distiller.teacher, self.device_mesh["data_parallel"])
        self._sharded = True

    def with_embeddings(self, batch: Batch) -> Batch:
        return self.distiller.with_embeddings(batch)

    def decode(self, x: Tensor) -> Tensor:
        return self.distiller.teacher.decode(x)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer for the generator and, where the loss trains them, one each for critics and discriminators."""
        optimizers = [self.generator_optimizer.build(self.distiller.generator)]
        if self.distiller.critics:
            optimizers.append(self.critic_optimizer.build(torch.nn.ModuleList(self.distiller.critics)))
        if self.distiller.discriminators:
            optimizers.append(self.discriminator_optimizer.build(torch.nn.ModuleList(self.distiller.discriminators)))
        return optimizers

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One tick of the update plan."""
        rng = self.rng_of_tick()
        turn = self.plan.turn(self.ticks, bool(self.distiller.critics or self.distiller.discriminators))
        diffused = None
        with reuse_forward(*self.distiller.critics) if self.plan.shares(turn) else nullcontext():
            if turn.generator:
                self.distiller.generator.on_progress(self.global_step, self.progress, rng)
                self.eval_generator.progress = self.progress
                diffused = self._update_generator(batch, rng)
            if turn.critic:
                self._update_critics(batch, diffused, rng)
        self.ticks += 1

    def counters(self) -> dict[str, float]:
        return super().counters() | {"critic_steps": self.critic_steps, "progress": self.distiller.generator.progress}

    def set_counters(self, counters: Mapping[str, float]) -> None:
        super().set_counters(counters)
        self.critic_steps = int(counters["critic_steps"])
        self.distiller.generator.progress = self.eval_generator.progress = counters["progress"]

    def _rebuilt(self) -> set[str]:
        """What critics have of frozen networks too, which need not be the teacher's."""
        named = self.named_modules(remove_duplicate=False)
        critics = [(name, module) for name, module in named if isinstance(module, TrainedCritic)]
        return super()._rebuilt() | {f"{name}.{key}" for name, critic in critics for key in critic.frozen}

    def _update_generator(self, batch: Batch, rng: torch.Generator) -> Diffused:
        optimizer = self.optimizer_at(0)
        self.generator_optimizer.prepare(optimizer.optimizer, self.global_step, self.progress)
        optimizer.zero_grad()
        if self.plan.accumulate == 1:
            sample = self.distiller.generate(batch, generator_at(rng.initial_seed(), 0))
            step = self.distiller.evaluate(sample, progress=self.progress, rng=rng)
            self.manual_backward(self.share_of_batch * with_regularizer(step.loss, step.diffused.sample))
        else:
            step = accumulated(self, batch, rng)
        norm = self.reduce_and_clip(self.generator_optimizer, optimizer.optimizer, self.split_particles)
        self.require_finite(norm, "generator", self.global_step)
        if self.reports(self.plan.period):
            report_step(self, step, norm)
        optimizer.step()
        self.distiller.loss.observe(step.diffused, step.gradient)
        if self.average is not None:
            self.average.update(self.distiller.generator)
        return step.diffused

    @property
    def share_of_batch(self) -> float:
        """This process's share of the samples over which the objective is a mean."""
        return 1 / self.distiller.shard.parts

    def _update_critics(self, batch: Batch, diffused: Diffused | None, rng: torch.Generator) -> None:
        """A step of critics and discriminators.

        Args:
            batch: what to generate.
            diffused: the generator step's own diffused samples, where there was one in this tick: the noise is fresh
                unless the plan shares it.
            rng: of the tick.
        """
        if diffused is None:
            diffused = self.distiller.diffused_sample(batch, self.progress, rng)
        elif self.plan.noise == "fresh":
            timesteps = self.distiller.critic_timesteps
            diffused = self.distiller.diffuse(diffused.sample, timesteps, progress=self.progress, rng=rng)
        errors = {}
        # Some versions of torch would take weights again that autocast has cast for the objective, without a gradient.
        torch.clear_autocast_cache()
        if self.distiller.critics:
            errors["critic"] = self.distiller.critic_error(diffused)
        if self.distiller.discriminators:
            errors["discriminator"] = self.distiller.discriminator_error(diffused)
        for index in range(1, 1 + len(errors)):
            self.optimizer_at(index).zero_grad()
        # One backward: a discriminator on the critic's features trains these too.
        self.manual_backward(torch.stack([error.mean() for error in errors.values()]).sum())
        for index, (name, error) in enumerate(errors.items(), 1):
            norm = self._critic_step(index, name)
            if self.reports(self.plan.period):
                report_critic(self, name, error.detach(), norm, diffused, self.levels)
        self.critic_steps += 1

    def _critic_step(self, index: int, name: str) -> Tensor:
        settings = {"critic": self.critic_optimizer, "discriminator": self.discriminator_optimizer}[name]
        optimizer = self.optimizer_at(index).optimizer
        settings.prepare(optimizer, self.critic_steps, self.progress)
        norm = self.reduce_and_clip(settings, optimizer)
        self.require_finite(norm, name, self.critic_steps)
        # Through the strategy and not the wrapped optimizer, which would count this as a generator step.
        self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        return norm
