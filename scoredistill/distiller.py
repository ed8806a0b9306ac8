"""Generator + teacher + loss: the one place where they meet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.prediction import noise_like
from scoredistill.diffusion.timesteps import TimestepSampler, UniformTimesteps
from scoredistill.distributed import all_gather
from scoredistill.generators.generator import Generator
from scoredistill.losses.distillation import Gradient, ScoreDistillation
from scoredistill.losses.trainable import require_registered, require_trained
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Condition, Diffused, Sample
from scoredistill.types.checks import require_shape, time_type


@dataclass(frozen=True)
class Step:
    """One evaluation of the objective.

    Args:
        loss: scalar surrogate, whose gradient at sample b is g_b / B.
        diffused: the diffused samples, and in `diffused.sample` the clean ones.
        gradient: g and its parts.
    """

    loss: Tensor
    diffused: Diffused
    gradient: Gradient


class Distiller(nn.Module):
    """Distils a teacher's score into a generator under a loss.

    It owns no optimizer and changes no state: given t, epsilon or a `torch.Generator`, every result is determined.

    Args:
        generator: what is trained.
        teacher: the frozen model of p; its parameters never get gradients, and its dropout is off.
        loss: the objective.
        guidance: how the teacher is asked; None: CFG of scale 1.
        timesteps: distribution of t; None: U(.02, .98).
        critic_timesteps: distribution of t for training the critic; None: as `timesteps`.

    Raises:
        ValueError: if something trainable of the loss would never be trained, or modules lie in plain containers.
    """

    critics: list[Critic]
    """The loss's critics that are trained."""

    discriminators: list[DiscriminatorRatio]
    """The loss's discriminators."""

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        loss: ScoreDistillation,
        guidance: Guidance | None = None,
        timesteps: TimestepSampler | None = None,
        critic_timesteps: TimestepSampler | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.teacher, self.loss = generator, teacher.requires_grad_(False).eval(), loss
        self.guidance = guidance or CFG()
        self.timesteps = timesteps or UniformTimesteps()
        self.critic_timesteps = critic_timesteps or self.timesteps
        generator.bind(teacher)
        loss.bind(teacher, self.timesteps)
        # Found once: to look through the thousands of modules of a large network takes longer than a small step may.
        self.critics = [m for m in loss.modules() if isinstance(m, Critic) and m.trainable]
        self.discriminators = [m for m in loss.modules() if isinstance(m, DiscriminatorRatio)]
        self._needs_population = any(isinstance(m, Critic) and m.needs_population for m in loss.modules())
        for module in loss.modules():
            if isinstance(module, Teacher):
                module.requires_grad_(False).eval()
        for part in (generator, loss, self.guidance, self.timesteps, self.critic_timesteps):
            require_registered(part)
        require_trained(loss, [*self.critics, *self.discriminators])

    def gradient(
        self,
        x: Tensor,
        *,
        t: float | Tensor,
        epsilon: Tensor,
        condition: Condition | None = None,
        sample: Sample | None = None,
    ) -> Tensor:
        """g(x; t, epsilon) = w(t) h(r) (A - B), without 1/B and without any reduction.

        Args:
            x: (B, *D) clean samples.
            t: in [0, 1]: a number, or (B,).
            epsilon: (B, *D) noise.
            condition: B rows; None: unconditional.
            sample: particle and view indices or a population for the critic, where x alone does not say it. By default
                x is the population if it has a row for every particle, else the generator's own particles are.

        Returns:
            (B, *D).

        Raises:
            ValueError: if t lies outside [0, 1], or the gradient has no value there.
        """
        condition = self.teacher.encode_prompt(condition, len(x))
        sample = replace(sample or self._as_sample(x, condition), x=x, condition=condition)
        diffused = Diffused.diffuse(sample, t, epsilon, self.teacher.schedule)
        return self.loss.gradient(diffused, self.teacher, self.guidance).g

    def generate(self, batch: Batch | None = None, rng: torch.Generator | None = None) -> Sample:
        """What the generator makes, where the teacher lives: prompts as embeddings, pictures encoded.

        Args:
            batch: what to generate; None: an unconditional batch.
            rng: CPU generator; None: torch's global one.
        """
        sample = self.generator(self.with_embeddings(batch or Batch()), rng)
        if self.generator.shard is not None and sample.particle is not None:
            sample = replace(sample, particle=sample.particle + self.generator.shard.first)
        with torch.no_grad():
            population = None if sample.population is None else self.teacher.encode(sample.population)
        condition = self.teacher.encode_prompt(sample.condition, len(sample.x))
        return replace(sample, x=self.teacher.encode(sample.x), condition=condition, population=population)

    def with_embeddings(self, batch: Batch) -> Batch:
        """The batch with its prompts as embeddings, for generators that read them."""
        return replace(batch, condition=self.teacher.encode_prompt(batch.condition, batch.count))

    def step(
        self,
        batch: Batch | None = None,
        *,
        t: float | Tensor | None = None,
        epsilon: Tensor | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Step:
        """Generate, diffuse and evaluate the objective.

        Args:
            batch: what to generate; None: an unconditional batch.
            t: in [0, 1]: a number, or (B,); None: drawn from `timesteps`.
            epsilon: (B, *D); None: drawn.
            progress: fraction of training done, for annealed timesteps.
            rng: CPU generator; None: torch's global one.
        """
        sample = self.generate(batch, rng)
        return self.evaluate(sample, t=t, epsilon=epsilon, progress=progress, rng=rng)

    def evaluate(
        self,
        sample: Sample,
        *,
        t: float | Tensor | None = None,
        epsilon: Tensor | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Step:
        """Diffuse samples that are there already and evaluate the objective; arguments are those of `step`."""
        diffused = self.diffuse(sample, self.timesteps, t, epsilon, progress, rng)
        gradient = self.loss.gradient(diffused, self.teacher, self.guidance)
        return Step(surrogate(sample.x, gradient.g), diffused, gradient)

    def generator_loss(
        self,
        batch: Batch | None = None,
        *,
        t: float | Tensor | None = None,
        epsilon: Tensor | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Scalar surrogate, whose gradient at sample b is g_b / B and whose value is the mean of ||g||^2 / 2.

        Arguments are those of `step`.
        """
        return self.step(batch, t=t, epsilon=epsilon, progress=progress, rng=rng).loss

    def critic_loss(
        self,
        batch: Batch | None = None,
        *,
        diffused: Diffused | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Denoising score matching of every trained critic on the generator's samples, a scalar.

        Args:
            batch: what to generate; None: an unconditional batch.
            diffused: diffused samples to train on in place of fresh ones, those of a generator step for example.
            progress: fraction of training done.
            rng: CPU generator; None: torch's global one.

        Raises:
            ValueError: if the loss has no trained critic.
        """
        if not self.critics:
            raise ValueError(f"{type(self.loss).__name__} has no trained critic")
        return self.critic_error(diffused or self.diffused_sample(batch, progress=progress, rng=rng)).mean()

    def critic_error(self, diffused: Diffused) -> Tensor:
        """The trained critics' error on each diffused sample, (B,).

        Raises:
            ValueError: if a critic gives anything but one number for each sample.
        """
        return _summed([(critic, critic.training_error(diffused)) for critic in self.critics], diffused)

    def discriminator_error(self, diffused: Diffused, batch: Batch, rng: torch.Generator | None = None) -> Tensor:
        """The discriminators' error on each pair of a generated and a real sample, (B,).

        Args:
            diffused: the generator's diffused samples.
            batch: its data, (B, *D), are diffused to the same times.
            rng: CPU generator; None: torch's global one.

        Raises:
            ValueError: if the batch has no data, or not as many as there are samples, or a discriminator gives anything
                but one number for each.
        """
        if batch.data is None:
            raise ValueError("a discriminator needs real samples, but the batch has none: use a data module with data")
        if len(batch.data) != len(diffused.t):
            raise ValueError(
                f"there are {len(diffused.t)} generated samples in a batch and {len(batch.data)} real ones"
            )
        condition = diffused.condition if batch.data_label is None else Condition(label=batch.data_label)
        data = Sample(batch.data.to(diffused.x_t), condition)
        real = Diffused.diffuse(data, diffused.t, noise_like(diffused.x_t, rng), diffused.schedule)
        critic = next(iter(self.critics), None)
        return _summed(
            [(d, d.weight * d.training_error(diffused, real, self.teacher, critic)) for d in self.discriminators],
            diffused,
        )

    def diffused_sample(
        self, batch: Batch | None = None, progress: float = 0.0, rng: torch.Generator | None = None
    ) -> Diffused:
        """Samples without graph, diffused to the critics' times."""
        with torch.no_grad():
            sample = self.generate(batch, rng)
        return self.diffuse(sample, self.critic_timesteps, None, None, progress, rng)

    def diffuse(
        self,
        sample: Sample,
        timesteps: TimestepSampler,
        t: float | Tensor | None = None,
        epsilon: Tensor | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Diffused:
        """x_t = alpha_t x + sigma_t epsilon, with t and epsilon drawn where they are not given."""
        sample = self._among_all(sample)
        x, schedule, share = sample.x, self.teacher.schedule, self.generator.shard
        # Where other processes hold the other particles, each draws for all of them, and keeps its own.
        rows = len(x) if share is None else len(x) * share.processes
        if t is None:
            drawn = timesteps(rows, schedule, progress, rng)
            t = (drawn if share is None else share.of(drawn)).to(time_type(x))
        if epsilon is None:
            noise = noise_like(x if share is None else x.new_empty(rows, *x.shape[1:]), rng)
            epsilon = noise if share is None else share.of(noise)
        return Diffused.diffuse(sample, t, epsilon, schedule)

    def _among_all(self, sample: Sample) -> Sample:
        """The sample with other processes' particles as its population, where a critic looks at them."""
        if self.generator.shard is None or not self._needs_population or sample.population is not None:
            return sample
        views = sample.views
        return replace(
            sample, population=all_gather(sample.x), population_view=None if views is None else all_gather(views)
        )

    def _as_sample(self, x: Tensor, condition: Condition | None) -> Sample:
        own = self.generator.population()
        if own is None or len(x) > len(own.x):
            return Sample(x)
        asked = None if condition is None else condition.views
        if len(x) == len(own.x):
            return Sample(x, view=own.view if asked is None else asked)
        if own.view is not None and asked is None:
            raise ValueError("the particles have labels: give condition=Condition(label=...) or sample= with x")
        return Sample(x, view=asked, population=own.x, population_view=own.view)


def _summed(errors: list[tuple[nn.Module, Tensor]], diffused: Diffused) -> Tensor:
    """Each sample's error over several modules, (B,), one number of each."""
    rows = diffused.t.shape
    return torch.stack([require_shape(e, rows, f"training_error of {type(m).__name__}") for m, e in errors]).sum(0)


def surrogate(x: Tensor, g: Tensor) -> Tensor:
    """1/B sum_b ( <g_b, x_b - stop(x_b)> + ||g_b||^2 / 2 ): its gradient in x_b is exactly g_b / B.

    Args:
        x: (B, *D), differentiable.
        g: (B, *D), taken as a constant.

    Raises:
        ValueError: if the shapes differ.
    """
    g = require_shape(g.detach(), x.shape, "the gradient of the loss")
    return ((g * (x - x.detach())).sum() + 0.5 * (g * g).sum()) / len(x)
