"""Generated samples, clean and diffused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types.batch import WHOLE, Shard
from scoredistill.types.checks import require_times, times_of
from scoredistill.types.condition import Condition, rows_of

if TYPE_CHECKING:
    from scoredistill.diffusion.prediction import Prediction
    from scoredistill.diffusion.schedule import Schedule
    from scoredistill.networks.denoiser import Denoiser


def right_pad_dims(value: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1), so that it multiplies `like`, (B, *D), sample by sample."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


ROWS = ("x", "condition", "particle", "view_index", "picture", "noise", "target", "segment", "data", "data_label")
"""Fields of a `Sample` that have a row for each sample."""


@dataclass(frozen=True)
class Segment:
    """The step of a few-step student that made each sample: x = x0(x_t, t), from which it goes on to time `next_t`.

    Args:
        x_t: (B, *D) the network's input, without gradient.
        t: (B,) its time, in (0, 1].
        next_t: (B,) the time of the next step, below t; 0 after the last step.
        student: the student's network.
        schedule: alpha and sigma of the student's times.
    """

    x_t: Tensor
    t: Tensor
    next_t: Tensor
    student: Denoiser
    schedule: Schedule

    def __getitem__(self, index: Tensor) -> Segment:
        """Select rows by an index tensor of any length."""
        return replace(self, x_t=self.x_t[index], t=self.t[index], next_t=self.next_t[index])

    @classmethod
    def cat(cls, parts: Sequence[Segment]) -> Segment:
        """Concatenate the steps of one student."""
        x_t, t, next_t = (torch.cat([getattr(part, name) for part in parts]) for name in ("x_t", "t", "next_t"))
        return replace(parts[0], x_t=x_t, t=t, next_t=next_t)


@dataclass(frozen=True)
class Sample:
    """Samples from a generator.

    Args:
        x: (B, *D) clean samples, differentiable in the generator's parameters.
        condition: the condition of each sample, B rows.
        particle: (B,) index of each sample's particle, or None.
        view_index: (B,) samples with equal index share camera and label and differ only in the particle; None: derived
            from the condition.
        population: (M, *D) samples of the generator's distribution, with `population_view_index` (M,), if the batch
            does not contain every particle; None: the batch is the population.
        regularizer: scalar penalty of the generator, or None.
        picture: (B, 3, H, W) rendered pictures, differentiable, if x are their latents; None: x are the pictures.
        noise: (B, ...) input noise of a one-step generator, or None.
        target: (B, *D) the sample that belongs to the input noise, the teacher's own for example, or None.
        segment: the step of a few-step student that made the samples; None: the generator has no steps.
        data: (B, ...) the batch's real samples, with `data_label` (B,), or None.
    """

    x: Tensor
    condition: Condition | None = None
    particle: Tensor | None = None
    view_index: Tensor | None = None
    population: Tensor | None = None
    population_view_index: Tensor | None = None
    regularizer: Tensor | None = None
    picture: Tensor | None = None
    noise: Tensor | None = None
    target: Tensor | None = None
    segment: Segment | None = None
    data: Tensor | None = None
    data_label: Tensor | None = None

    @property
    def views(self) -> Tensor | None:
        """(B,) `view_index`, or the condition's; None: all samples share one view."""
        return self.view_index if self.view_index is not None or self.condition is None else self.condition.views

    def __getitem__(self, index: Tensor) -> Sample:
        """Select rows by an index tensor of any length; the population is kept."""
        names = [name for name in ROWS if not name.startswith("data") or self._is_paired]
        return replace(self, **{name: rows_of(getattr(self, name), index) for name in names})

    @property
    def _is_paired(self) -> bool:
        """Whether there is a real sample for each sample."""
        return self.data is not None and len(self.data) == len(self.x)

    @classmethod
    def cat(cls, parts: Sequence[Sample]) -> Sample:
        """Concatenate micro-batches. Cameras of different micro-batches are different views; labels are shared."""
        joined = {name: _joined_where_all([getattr(part, name) for part in parts]) for name in sorted(CONCATENATED)}
        steps = [part.segment for part in parts if part.segment is not None]
        penalties = [part.regularizer * len(part.x) for part in parts if part.regularizer is not None]
        return cls(
            condition=Condition.cat([part.condition for part in parts]),
            view_index=_joined_where_all(_view_indices(parts)),
            segment=Segment.cat(steps) if len(steps) == len(parts) else None,
            regularizer=torch.stack(penalties).sum() / sum(len(part.x) for part in parts) if penalties else None,
            **joined,  # type: ignore[arg-type]
        )


CONCATENATED = {*ROWS, "population", "population_view_index"} - {"condition", "view_index", "segment"}
"""Fields that are joined row after row."""


@dataclass(frozen=True)
class Diffused:
    """Samples diffused to time t: x_t = alpha_t x + sigma_t epsilon. The input of every loss.

    Args:
        x_t: (B, *D).
        t: (B,) in [0, 1].
        epsilon: (B, *D), the noise in x_t, drawn or found by `ScoreDistillation.prepare`; the baseline of SDS.
        sample: the clean samples.
        schedule: alpha and sigma.
        progress: fraction of training done, in [0, 1].
        rng: for further random numbers of a loss; None: torch's global one.
        shard: the rows held here; it computes statistics of the complete batch.
        predictions: the teacher's predictions under the conditions of `ScoreDistillation.conditions`.
        state: (B, *D) the clean sample in x_t where it is not that of the generator; None: `sample.x`.
        target: A, the guided teacher's prediction, once it is known; for `ScoreDistillation.baseline`.
        at_end: whether noise or signal vanishes at one of the times; always False on an accelerator.
    """

    x_t: Tensor
    t: Tensor
    epsilon: Tensor
    sample: Sample
    schedule: Schedule
    progress: float = 0.0
    rng: torch.Generator | None = None
    shard: Shard = WHOLE
    predictions: Sequence[Prediction] = ()
    state: Tensor | None = None
    target: Prediction | None = None
    at_end: bool = False

    def __post_init__(self) -> None:
        require("[0, 1]", progress=self.progress)

    @property
    def condition(self) -> Condition | None:
        """The samples' condition, B rows, or None."""
        return self.sample.condition

    @property
    def segment(self) -> Segment | None:
        """The step of the student that made the samples; None for a generator without steps.

        Raises:
            ValueError: if the student has another kind of schedule than the diffused samples.
        """
        segment = self.sample.segment
        if segment is not None and type(segment.schedule) is not type(self.schedule):
            kinds = f"{type(segment.schedule).__name__} and {type(self.schedule).__name__}"
            raise ValueError(f"a student's steps need the teacher's schedule, got {kinds}: leave out the student's own")
        return segment

    @property
    def origin(self) -> Tensor:
        """x in x_t = alpha_t x + sigma_t epsilon, (B, *D), detached."""
        return self.sample.x.detach() if self.state is None else self.state

    @property
    def alpha(self) -> Tensor:
        """alpha_t, (B,)."""
        return self.schedule(self.t)[0]

    @property
    def sigma(self) -> Tensor:
        """sigma_t, (B,)."""
        return self.schedule(self.t)[1]

    @classmethod
    def diffuse(
        cls,
        sample: Sample,
        t: float | Tensor,
        epsilon: Tensor,
        schedule: Schedule,
        progress: float = 0.0,
        rng: torch.Generator | None = None,
        shard: Shard = WHOLE,
    ) -> Diffused:
        """x_t = alpha_t x + sigma_t epsilon, detached from the generator.

        Args:
            sample: clean samples.
            t: in [0, 1]: a number, or (B,).
            epsilon: (B, *D) noise.
            schedule: alpha and sigma.
            progress, rng, shard: as in the class.

        Raises:
            ValueError: if t has another shape, or lies outside [0, 1] (checked on the CPU only).
        """
        x = sample.x.detach()
        t = require_times(times_of(t, x))
        at_end = schedule.touches_end(t)
        t = t.to(x.device)
        x_t = mixed(x, t, epsilon, schedule)
        return cls(x_t, t, epsilon, sample, schedule, progress, rng, shard, at_end=at_end)

    def at(self, t: Tensor, epsilon: Tensor | None = None) -> Diffused:
        """The same samples at other times, (B,), with the same or other noise, (B, *D)."""
        epsilon = self.epsilon if epsilon is None else epsilon
        x_t = mixed(self.sample.x.detach(), t, epsilon, self.schedule)
        moved = replace(self, x_t=x_t, t=t, epsilon=epsilon, at_end=self.schedule.touches_end(t))
        return replace(moved, predictions=(), target=None, state=None)

    def detach(self) -> Diffused:
        """The same samples, detached."""
        return replace(self, x_t=self.x_t.detach(), sample=replace(self.sample, x=self.sample.x.detach()))

    def under(self, condition: Condition | None) -> Diffused:
        """The same x_t under another condition, B rows or None."""
        return replace(self, sample=replace(self.sample, condition=condition), predictions=(), target=None)


def mixed(x: Tensor, t: Tensor, epsilon: Tensor, schedule: Schedule) -> Tensor:
    """alpha_t x + sigma_t epsilon, (B, *D), in the type of the samples: times may be finer than half precision."""
    alpha, sigma = schedule(t)
    x_t = right_pad_dims(alpha, x) * x + right_pad_dims(sigma, x) * epsilon
    return x_t.to(torch.result_type(x, epsilon))


def _joined_where_all(values: Sequence[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.cat(given) if len(given) == len(values) else None


def _view_indices(parts: Sequence[Sample]) -> list[Tensor | None]:
    """View index of each part, offset so that cameras of different parts differ."""
    if any(part.condition is None or part.condition.camera is None for part in parts):
        return [part.view_index for part in parts]
    indices: list[Tensor | None] = []
    offset = 0
    for part in parts:
        own = part.x.new_zeros(len(part.x), dtype=torch.long) if part.view_index is None else part.view_index
        indices.append(own + offset)
        offset += int(own.max()) + 1
    return indices
