"""The distiller: generator, teacher and loss together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.timesteps import TimestepSampler, UniformTimesteps
from scoredistill.generators.generator import Generator
from scoredistill.losses.objective import Gradient, Objective
from scoredistill.losses.trainable import require_registered, require_trained
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Condition, Diffused, Sample, Shard
from scoredistill.types.batch import WHOLE
from scoredistill.types.checks import require_shape, time_type

__all__ = ["Distiller", "Step", "surrogate"]


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
    """Distills a teacher's score into a generator under a loss.

    It owns no optimizer and changes no state. Given t and epsilon, or a `torch.Generator`, results are deterministic.

    Args:
        generator: the model that is trained.
        teacher: the frozen model of p, in evaluation mode.
        loss: the objective.
        guidance: of the teacher; None: CFG of scale 1.
        timesteps: distribution of t; None: U(.02, .98).
        critic_timesteps: distribution of t for training the critic; None: as `timesteps`.

    Raises:
        ValueError: if a trainable parameter of the loss belongs to no trained part, or modules are in plain containers.
    """

    critics: list[TrainedPart]
    """Trained parts of the loss other than discriminators."""

    discriminators: list[DiscriminatorRatio]
    """Discriminators of the loss."""

    shard: Shard = WHOLE
    """The rows of each batch held by this process."""

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        loss: Objective,
        guidance: Guidance | None = None,
        timesteps: TimestepSampler | None = None,
        critic_timesteps: TimestepSampler | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.teacher = teacher.requires_grad_(False).eval()
        self.loss = loss
        self.guidance = guidance or CFG()
        self.timesteps = timesteps or UniformTimesteps()
        self.critic_timesteps = critic_timesteps or self.timesteps
        generator.bind(teacher)
        loss.bind(teacher, self.timesteps)
        # Collected once: iterating over the modules of a large network takes longer than a small step.
        modules = list(loss.modules())
        self.discriminators = [m for m in modules if isinstance(m, DiscriminatorRatio)]
        self.critics = [m for m in modules if isinstance(m, TrainedPart) and not isinstance(m, DiscriminatorRatio)]
        self._needs_population = any(isinstance(m, Critic) and m.needs_population for m in modules)
        for module in modules:
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
            sample: particle and view index or population for the critic. By default the population is x if it has a
                row for every particle, otherwise the generator's particles.

        Returns:
            (B, *D).

        Raises:
            ValueError: if t lies outside [0, 1], or the gradient is undefined there.
        """
        condition = self.teacher.encode_prompt(condition, len(x))
        sample = replace(sample or self._as_sample(x, condition), x=x, condition=condition)
        diffused = self.loss.place(Diffused.diffuse(sample, t, epsilon, self.teacher.schedule, shard=self.shard))
        return self.loss.gradient(diffused, self.teacher, self.guidance).g

    def generate(self, batch: Batch | None = None, rng: torch.Generator | None = None) -> Sample:
        """Samples of the generator in the teacher's space: pictures are encoded, prompts embedded.

        Args:
            batch: what to generate; None: an unconditional batch.
            rng: generator of random numbers; None: torch's global one.
        """
        batch = self.with_embeddings(replace(batch or Batch(), shard=self.shard))
        sample = self.generator(batch, rng)
        x = self.teacher.encode(sample.x)
        with torch.no_grad():
            population = None if sample.population is None else self.teacher.encode(sample.population)
        return replace(
            sample,
            x=x,
            condition=self.teacher.encode_prompt(sample.condition, len(x)),
            population=population,
            picture=None if x is sample.x else sample.x,
            data=batch.data,
            data_label=batch.data_label,
        )

    def with_embeddings(self, batch: Batch) -> Batch:
        """The batch with the prompts' embeddings, for generators that use them."""
        return replace(batch, condition=self.teacher.encode_prompt(batch.condition, batch.count))

    def evaluate(
        self,
        batch: Batch | Sample | None = None,
        *,
        t: float | Tensor | None = None,
        epsilon: Tensor | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Step:
        """Generate, diffuse and evaluate the objective.

        Args:
            batch: what to generate, or existing samples; None: an unconditional batch.
            t: in [0, 1]: a number, or (B,); None: drawn from `timesteps`.
            epsilon: (B, *D); None: drawn.
            progress: fraction of training done, for annealed timesteps.
            rng: generator of random numbers; None: torch's global one.
        """
        sample = batch if isinstance(batch, Sample) else self.generate(batch, rng)
        diffused = self.diffuse(sample, self.timesteps, t, epsilon, progress, rng)
        gradient = self.loss.gradient(diffused, self.teacher, self.guidance)
        return Step(surrogate(sample, gradient.g, gradient.picture), diffused, gradient)

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

        Arguments are those of `evaluate`.
        """
        return self.evaluate(batch, t=t, epsilon=epsilon, progress=progress, rng=rng).loss

    def critic_loss(
        self,
        batch: Batch | None = None,
        *,
        diffused: Diffused | None = None,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """The training error of every trained critic on the generator's samples, a scalar.

        Args:
            batch: what to generate; None: an unconditional batch.
            diffused: diffused samples to use instead of new ones, for example those of a generator step.
            progress: fraction of training done.
            rng: generator of random numbers; None: torch's global one.

        Raises:
            ValueError: if the loss has no trained critic.
        """
        if not self.critics:
            raise ValueError(f"{type(self.loss).__name__} has no trained critic")
        return self.critic_error(diffused or self.diffused_sample(batch, progress=progress, rng=rng)).mean()

    def critic_error(self, diffused: Diffused) -> Tensor:
        """The trained critics' error on each diffused sample, (B,).

        Raises:
            ValueError: if a critic does not return one number per sample.
        """
        return self._training_error(self.critics, diffused)

    def discriminator_error(self, diffused: Diffused) -> Tensor:
        """The discriminators' error on each pair of a generated and a real sample, (B,).

        Args:
            diffused: the generator's diffused samples, with real samples in `diffused.sample.data`.

        Raises:
            ValueError: if the numbers of real and generated samples differ, or a discriminator does not return one
                number per sample.
        """
        return self._training_error(self.discriminators, diffused)

    def _training_error(self, parts: Sequence[TrainedPart], diffused: Diffused) -> Tensor:
        rows = diffused.t.shape
        errors = []
        for part in parts:
            error = part.training_error(diffused, self.teacher)
            errors.append(require_shape(error, rows, f"training_error of {type(part).__name__}"))
        return torch.stack(errors).sum(0)

    def diffused_sample(
        self, batch: Batch | None = None, progress: float = 0.0, rng: torch.Generator | None = None
    ) -> Diffused:
        """Detached samples, diffused to the critics' times."""
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
        """x_t = alpha_t x + sigma_t epsilon, with t and epsilon drawn unless given, where the loss places it."""
        x = sample.x
        schedule = self.teacher.schedule
        shard = self.shard
        if self._needs_population and sample.population is None:
            sample = shard.with_population(sample)
        if t is None:
            t = shard.draw(lambda rows: timesteps(rows, schedule, progress, rng), len(x)).to(time_type(x))
        if epsilon is None:
            epsilon = shard.noise_like(x, rng)
        return self.loss.place(Diffused.diffuse(sample, t, epsilon, schedule, progress, rng, shard))

    def _as_sample(self, x: Tensor, condition: Condition | None) -> Sample:
        own = self.generator.population()
        if own is None or len(x) > len(own.x):
            return Sample(x)
        views = None if condition is None else condition.views
        if len(x) == len(own.x):
            return Sample(x, view_index=own.view_index if views is None else views)
        if own.view_index is not None and views is None:
            raise ValueError("the particles have labels: give condition=Condition(label=...) or sample= with x")
        return Sample(x, view_index=views, population=own.x, population_view_index=own.view_index)


def surrogate(sample: Sample, g: Tensor, picture: Tensor | None = None) -> Tensor:
    """1/B sum_b ( <g_b, x_b - stop(x_b)> + ||g_b||^2 / 2 ): its gradient in x_b is exactly g_b / B.

    Args:
        sample: whose x, (B, *D), is differentiable.
        g: (B, *D), taken as a constant.
        picture: the gradient with respect to the rendered picture, (B, 3, H, W), or None.

    Raises:
        ValueError: if the shapes differ.
    """
    loss = _linear(sample.x, g, "the gradient of the loss")
    if picture is not None:
        shown = sample.x if sample.picture is None else sample.picture
        loss = loss + _linear(shown, picture, "the loss's gradient of the picture")
    return loss


def _linear(x: Tensor, g: Tensor, what: str) -> Tensor:
    g = require_shape(g.detach(), x.shape, what)
    return ((g * (x - x.detach())).sum() + 0.5 * (g * g).sum()) / len(x)
