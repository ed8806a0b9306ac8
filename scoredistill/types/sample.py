"""What a generator made, clean and diffused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoredistill.types.checks import require_times, times_of
from scoredistill.types.condition import Condition, rows_of

if TYPE_CHECKING:
    from scoredistill.diffusion.schedule import Schedule


def right_pad_dims(value: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1), so that it multiplies `like`, (B, *D), sample by sample."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


@dataclass(frozen=True)
class Sample:
    """What a generator made.

    Args:
        x: (B, *D) clean samples, differentiable in the generator's parameters.
        condition: what each of the B samples was asked to be, row by row.
        particle: (B,) index of the particle that made each sample, or None.
        view: (B,) samples of equal index were made under one condition (one camera, one label) and differ only in the
            particle; None: as the condition's rows say.
        population: (M, *D) samples that stand for the generator's whole distribution, with `population_view` (M,),
            where the batch itself does not hold every particle; None: the batch is the population.
        epsilon: (B, *D) the noise that was injected when it was diffused, or None.
        regularizer: scalar penalty that the generator puts on itself, or None.
    """

    x: Tensor
    condition: Condition | None = None
    particle: Tensor | None = None
    view: Tensor | None = None
    population: Tensor | None = None
    population_view: Tensor | None = None
    epsilon: Tensor | None = None
    regularizer: Tensor | None = None

    @property
    def views(self) -> Tensor | None:
        """(B,) `view`, or what the condition's rows say; None: all samples are of one view."""
        return self.view if self.view is not None or self.condition is None else self.condition.views

    def __getitem__(self, index: Tensor) -> Sample:
        """Rows of the samples, by an index tensor of any length; the population stays whole."""
        fields = {
            name: rows_of(getattr(self, name), index) for name in ("x", "condition", "particle", "view", "epsilon")
        }
        return replace(self, **fields)

    @classmethod
    def cat(cls, parts: Sequence[Sample]) -> Sample:
        """Join samples of several micro-batches. Views of different cameras stay apart; labels are the same for all."""
        penalties = [part.regularizer * len(part.x) for part in parts if part.regularizer is not None]
        return cls(
            torch.cat([part.x for part in parts]),
            Condition.cat([part.condition for part in parts]),
            particle=_joined_where_all([part.particle for part in parts]),
            view=_joined_where_all(_views(parts)),
            population=_joined_where_all([part.population for part in parts]),
            population_view=_joined_where_all([part.population_view for part in parts]),
            regularizer=torch.stack(penalties).sum() / sum(len(part.x) for part in parts) if penalties else None,
        )


@dataclass(frozen=True)
class Diffused:
    """A sample diffused to time t: x_t = alpha_t x + sigma_t epsilon. All that a loss may look at.

    Args:
        x_t: (B, *D).
        t: (B,) in [0, 1].
        epsilon: (B, *D), the noise that was injected.
        condition: what the teacher is asked, B rows, or None.
        sample: the clean sample it came from.
        schedule: alpha and sigma.
        at_end: whether noise or signal vanishes at one of the times, as far as was seen without waiting for a device.
    """

    x_t: Tensor
    t: Tensor
    epsilon: Tensor
    condition: Condition | None
    sample: Sample
    schedule: Schedule
    at_end: bool = False

    @classmethod
    def diffuse(cls, sample: Sample, t: float | Tensor, epsilon: Tensor, schedule: Schedule) -> Diffused:
        """x_t = alpha_t x + sigma_t epsilon, detached from the generator.

        Args:
            sample: what the generator made.
            t: in [0, 1]: a number, or (B,).
            epsilon: (B, *D) noise.
            schedule: alpha and sigma.

        Raises:
            ValueError: if t has another shape, or one that is on the CPU lies outside [0, 1].
        """
        x = sample.x.detach()
        t = require_times(times_of(t, x))
        at_end = schedule.touches_end(t)
        t = t.to(x.device)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x_t = right_pad_dims(alpha, x) * x + right_pad_dims(sigma, x) * epsilon
        x_t = x_t.to(torch.result_type(x, epsilon))  # times are finer than samples in half precision
        return cls(x_t, t, epsilon, sample.condition, replace(sample, epsilon=epsilon), schedule, at_end)


def _joined_where_all(values: Sequence[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.cat(given) if len(given) == len(values) else None


def _views(parts: Sequence[Sample]) -> list[Tensor | None]:
    """Each part's views, counted on where they are those of its own cameras."""
    if any(part.condition is None or part.condition.camera is None for part in parts):
        return [part.view for part in parts]
    views: list[Tensor | None] = []
    offset = 0
    for part in parts:
        own = part.x.new_zeros(len(part.x), dtype=torch.long) if part.view is None else part.view
        views.append(own + offset)
        offset += int(own.max()) + 1
    return views
