"""The Lightning module of distillation, which trains a `Distiller` by an update plan."""

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
from scoredistill.training.average import Averaging, MovingAverage, averages_of
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import UpdatePlan
from scoredistill.training.randomness import generator_at
from scoredistill.training.strategies.fsdp import FSDP2, shard
from scoredistill.training.strategies.gathered import GatheredGenerator
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Diffused, Sample, Shard


def evaluate_in_micro_batches(module: Distillation, batch: Batch, rng: torch.Generator) -> Step:
    """Evaluate the objective on the full batch, and differentiate the generator one micro-batch at a time.

    Samples are generated twice: first without a graph, to evaluate g on all of them together, so that batch statistics
    and particle critics use the full batch; then with the same random numbers and a graph, to propagate their g. The
    random numbers of the generator are a separate stream, so that none depend on the number of micro-batches.

    Args:
        module: the module whose generator receives the gradient.
        batch: conditions of the samples.
        rng: random generator of the tick.
    """
    distiller = module.distiller
    parts = batch.split(module.plan.accumulate)
    seed = rng.initial_seed()
    generate = distiller.generate
    with torch.no_grad():
        samples = [generate(part, generator_at(seed, 0)) for part in parts]
    full = Sample.cat(samples)
    # In the order of an unsplit batch, particle by particle, so that each sample gets the same t and epsilon.
    zeros = torch.zeros(len(full.x), device=full.x.device)
    order = torch.argsort(zeros if full.particle is None else full.particle, stable=True)
    full = full[order]
    diffused = distiller.diffuse(full, distiller.timesteps, progress=module.progress, rng=rng)
    gradient = distiller.loss.gradient(diffused, distiller.teacher, distiller.guidance)
    rows = [len(sample.x) for sample in samples]
    gradients = (_parts(each, order, rows) for each in (gradient.g, gradient.picture))
    for part, g, picture in zip(parts, *gradients, strict=True):
        sample = generate(part, generator_at(seed, 0))
        share = module.share_of_batch * len(sample.x) / len(full.x)
        module.manual_backward(share * with_regularizer(surrogate(sample, g, picture), sample))
    return Step(surrogate(full, gradient.g, gradient.picture), diffused, gradient)


def _parts(g: Tensor | None, order: Tensor, rows: Sequence[int]) -> Sequence[Any]:
    """Split a gradient into one tensor per micro-batch, in the order of the micro-batches."""
    return [None] * len(rows) if g is None else torch.empty_like(g).index_copy(0, order, g).split(list(rows))


def with_regularizer(loss: Tensor, sample: Sample) -> Tensor:
    """Add the generator's regularizer to the loss."""
    return loss if sample.regularizer is None else loss + sample.regularizer


def report_step(module: LightningModule, step: Step, norm: Tensor) -> None:
    """Log a generator step.

    Args:
        module: the module that logs.
        step: the evaluated step.
        norm: norm of the gradient in all parameters of the generator.
    """
    module.log_dict({"loss": step.loss.detach(), "gradient_norm": norm}, prog_bar=True, sync_dist=True)
    metrics = {f"objective/{key}": value for key, value in step.gradient.report().items()}
    metrics["objective/t"] = step.gradient.diffused.t.mean()
    if step.diffused.sample.regularizer is not None:
        metrics["regularizer"] = step.diffused.sample.regularizer.detach()
    module.log_dict(metrics, sync_dist=True)


def report_critic(
    module: LightningModule, name: str, error: Tensor, norm: Tensor, diffused: Diffused, levels: TimeBins
) -> None:
    """Log a step of a critic or a discriminator, also by noise level; level_0 is the noisiest.

    Args:
        module: the module that logs.
        name: critic or discriminator.
        error: (B,) error of each sample.
        norm: norm of the gradient in all parameters.
        diffused: the samples.
        levels: bins of the noise level. Empty bins are not logged, so the levels are not averaged over processes.
    """
    module.log_dict({f"{name}/loss": error.mean(), f"{name}/gradient_norm": norm}, sync_dist=True)
    means = levels.means(error, diffused.t, diffused.schedule)
    module.log_dict({f"{name}/loss/level_{level}": mean for level, mean in means.items()})


LEVELS = 4
"""Number of noise levels by which losses are logged."""


class Distillation(TrainingModule):
    """Distills a teacher into a generator.

    All random numbers of a tick are determined by the seed and the tick's number, so that an interrupted and resumed
    run ends with the same weights, bit for bit. Lightning's global_step and max_steps count generator steps.

    Args:
        generator: the generator that is trained: particles, a NeRF, a network.
        teacher: the frozen diffusion model p.
        loss: the objective: SDS, VSD, FDistill, CSD, DDS or a custom class.
        guidance: guidance of the teacher: CFG or PerpNeg; None: the conditional model.
        timesteps: distribution of the noise time t; None: uniform on [.02, .98].
        critic_timesteps: distribution of t for training the critic; None: the same as timesteps.
        generator_optimizer: how the generator is optimized; None: Adam at its default rate.
        critic_optimizer: how trained critics are optimized; None: Adam at its default rate.
        discriminator_optimizer: how discriminators are optimized; None: Adam at its default rate.
        plan: order of generator and critic updates; None: one update of each per tick.
        ema: decay of an exponential moving average of the generator, used in evaluation, in [0, 1); or several averages
            by name; None: no average.
        evaluated: name of the average that is evaluated, saved as a picture and exported; None: the first one.
        noise_on: where noise is drawn: cpu, equal numbers on every device, or device, which is faster.
        seed: seed of all random numbers in training, in [0, 2^32).
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
        ema: float | Mapping[str, Averaging] | None = None,
        evaluated: str | None = None,
        noise_on: Literal["cpu", "device"] = "cpu",
        seed: int = 0,
    ) -> None:
        require("[0, 1)", ema=None if isinstance(ema, Mapping) else ema)
        require("[0, 2^32)", seed=seed)
        super().__init__(seed)
        self.distiller = Distiller(generator, teacher, loss, guidance, timesteps, critic_timesteps)
        self.distiller.shard = Shard(draw_on_device=noise_on == "device")
        self.generator_optimizer = generator_optimizer or NetworkOptimizer()
        self.critic_optimizer = critic_optimizer or NetworkOptimizer()
        self.discriminator_optimizer = discriminator_optimizer or NetworkOptimizer()
        self.levels = TimeBins.quantiles(self.distiller.critic_timesteps, teacher.schedule, LEVELS)
        self.plan = plan or UpdatePlan()
        self.averages, self.evaluated = averages_of(generator, ema), evaluated
        if evaluated is not None and evaluated not in self.averages:
            raise ValueError(
                f"model.evaluated: there is no average {evaluated!r}, only {', '.join(self.averages) or 'none'}"
            )
        self.critic_steps = 0
        self._gathered: GatheredGenerator | None = None
        self._sharded = False

    @property
    def eval_generator(self) -> Generator:
        """The generator that is evaluated: the moving average if there is one."""
        if self._gathered is not None and self._gathered.generator is not None:
            return self._gathered.generator
        return self.distiller.generator if self.average is None else cast(Generator, self.average.module)

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        if self._gathered is None:
            yield True
            return
        with self._gathered.gather(self.eval_generator) as is_first:
            yield is_first

    def split(self, shard: ParticleShard) -> None:
        """Keep this process's shard of the particles; the first process can still gather all of them (`gathered`).

        Args:
            shard: the shard of this process.

        Raises:
            ValueError: if the generator cannot be split.
        """
        gathered = GatheredGenerator(self.eval_generator, shard.process == 0)
        self.distiller.generator.keep_particles(shard.first, shard.held)
        for average in self.averages.values():
            cast(Generator, average.module).keep_particles(shard.first, shard.held)
        self._gathered = gathered
        self.distiller.shard = shard

    @property
    def split_particles(self) -> bool:  # type: ignore[override]
        """Whether this process holds only its shard of the particles."""
        return self._gathered is not None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if is_distributed() and self._gathered is None:
            self.distiller.shard = BatchShard(self.distiller.shard.draw_on_device)

    def configure_model(self) -> None:
        """Shard the networks if the strategy has a device mesh."""
        if self.device_mesh is None or self._sharded:
            return
        averaged, distiller = self.averages.values(), self.distiller
        shard([distiller.generator, *averaged, distiller.loss], distiller.teacher, self.device_mesh["data_parallel"])
        self._sharded = True

    def with_embeddings(self, batch: Batch) -> Batch:
        return self.distiller.with_embeddings(batch)

    def decode(self, x: Tensor) -> Tensor:
        return self.distiller.teacher.decode(x)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer for the generator, and one each for critics and discriminators if the loss trains any."""
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
        """Include the frozen networks of critics, which may differ from the teacher's."""
        modules = self.named_modules(remove_duplicate=False)
        critics = [(name, module) for name, module in modules if isinstance(module, TrainedCritic)]
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
            step = evaluate_in_micro_batches(self, batch, rng)
        norm = self.reduce_and_clip(self.generator_optimizer, optimizer.optimizer, self.split_particles)
        self.require_finite_norm(norm, "generator", self.global_step)
        if self.logs_this_tick(self.plan.period):
            report_step(self, step, norm)
        optimizer.step()
        self.distiller.loss.observe(step.gradient.diffused, step.gradient)
        samples = len(step.diffused.t) * (1 if self.split_particles else self.trainer.world_size)
        for average in self.averages.values():
            cast(MovingAverage, average).update(self.distiller.generator, samples)
        return step.diffused

    @property
    def share_of_batch(self) -> float:
        """Share of this process in the samples over which the objective is averaged."""
        return 1 / self.distiller.shard.parts

    def _update_critics(self, batch: Batch, diffused: Diffused | None, rng: torch.Generator) -> None:
        """Update critics and discriminators.

        Args:
            batch: conditions of the samples.
            diffused: the diffused samples of the generator step, if this tick had one; they are diffused anew unless
                the plan shares the noise.
            rng: random generator of the tick.
        """
        if diffused is None:
            diffused = self.distiller.diffused_sample(batch, self.progress, rng)
        elif self.plan.noise == "fresh":
            timesteps = self.distiller.critic_timesteps
            diffused = self.distiller.diffuse(diffused.sample, timesteps, progress=self.progress, rng=rng)
        errors = {}
        # Some versions of torch would reuse weights that autocast has cast for the objective, without a gradient.
        torch.clear_autocast_cache()
        if self.distiller.critics:
            errors["critic"] = self.distiller.critic_error(diffused)
        if self.distiller.discriminators:
            errors["discriminator"] = self.distiller.discriminator_error(diffused)
        for index in range(1, 1 + len(errors)):
            self.optimizer_at(index).zero_grad()
        # A single backward pass, because a discriminator on the critic's features also trains the critic.
        self.manual_backward(torch.stack([error.mean() for error in errors.values()]).sum())
        for index, (name, error) in enumerate(errors.items(), 1):
            norm = self._critic_step(index, name)
            if self.logs_this_tick(self.plan.period):
                report_critic(self, name, error.detach(), norm, diffused, self.levels)
        self.critic_steps += 1

    def _critic_step(self, index: int, name: str) -> Tensor:
        settings = {"critic": self.critic_optimizer, "discriminator": self.discriminator_optimizer}[name]
        optimizer = self.optimizer_at(index).optimizer
        settings.prepare(optimizer, self.critic_steps, self.progress)
        norm = self.reduce_and_clip(settings, optimizer)
        self.require_finite_norm(norm, name, self.critic_steps)
        # Through the strategy: the wrapped optimizer would count this as a generator step.
        self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        return norm
