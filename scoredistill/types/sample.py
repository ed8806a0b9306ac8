"""What a generator made, clean and diffused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoredistill.ranges import require
from scoredistill.types.checks import require_times, times_of
from scoredistill.types.condition import Condition, rows_of
from scoredistill.types.shard import WHOLE, Shard

if TYPE_CHECKING:
    from scoredistill.diffusion.prediction import Prediction
    from scoredistill.diffusion.schedule import Schedule


def right_pad_dims(value: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1), so that it multiplies `like`, (B, *D), sample by sample."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


ROWS = ("x", "condition", "particle", "view_index", "picture", "noise", "data", "data_label")
"""Fields of a `Sample` that have a row for each sample."""


@dataclass(frozen=True)
class Sample:
    """What a generator made.

    Args:
        x: (B, *D) clean samples, differentiable in the generator's parameters.
        condition: what each of the B samples was asked to be, row by row.
        particle: (B,) index of the particle that made each sample, or None.
        view_index: (B,) samples of equal index were made under one condition (one camera, one label) and differ only in
            the particle; None: as the condition's rows say.
        population: (M, *D) samples that stand for the generator's whole distribution, with `population_view_index`
            (M,), where the batch itself does not hold every particle; None: the batch is the population.
        regularizer: scalar penalty that the generator puts on itself, or None.
        picture: (B, 3, H, W) the rendered pictures, with graph, where the teacher lives among latents and x is what
            they were encoded to; None: x is the picture.
        noise: (B, ...) what a generator from noise started from, or None.
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
    data: Tensor | None = None
    data_label: Tensor | None = None

    @property
    def views(self) -> Tensor | None:
        """(B,) `view_index`, or what the condition's rows say; None: all samples are of one view."""
        return self.view_index if self.view_index is not None or self.condition is None else self.condition.views

    def __getitem__(self, index: Tensor) -> Sample:
        """Rows of the samples, by an index tensor of any length; the population stays whole."""
        names = [name for name in ROWS if not name.startswith("data") or self._is_paired]
        return replace(self, **{name: rows_of(getattr(self, name), index) for name in names})

    @property
    def _is_paired(self) -> bool:
        """Whether there is a real sample for each sample."""
        return self.data is not None and len(self.data) == len(self.x)

    @classmethod
    def cat(cls, parts: Sequence[Sample]) -> Sample:
        """Join samples of several micro-batches. Views of different cameras stay apart; labels are the same for all."""
        joined = {name: _joined_where_all([getattr(part, name) for part in parts]) for name in sorted(PLAIN)}
        penalties = [part.regularizer * len(part.x) for part in parts if part.regularizer is not None]
        return cls(
            condition=Condition.cat([part.condition for part in parts]),
            view_index=_joined_where_all(_view_indices(parts)),
            regularizer=torch.stack(penalties).sum() / sum(len(part.x) for part in parts) if penalties else None,
            **joined,  # type: ignore[arg-type]
        )


PLAIN = {*ROWS, "population", "population_view_index"} - {"condition", "view_index"}
"""Fields that are joined row after row."""


@dataclass(frozen=True)
class Diffused:
    """A sample diffused to time t: x_t = alpha_t x + sigma_t epsilon. All that a loss may look at.

    Args:
        x_t: (B, *D).
        t: (B,) in [0, 1].
        epsilon: (B, *D), the noise in x_t.
        sample: the clean sample it came from.
        schedule: alpha and sigma.
        progress: fraction of training done, in [0, 1].
        rng: of whatever a loss draws beside epsilon; None: torch's global one.
        shard: which rows of the batch these are; statistics of the batch are asked of it.
        predictions: the teacher's at x_t, under the conditions that the loss named in `conditions`.
        at_end: whether noise or signal vanishes at one of the times, as far as was seen without waiting for a device.
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
    at_end: bool = False

    def __post_init__(self) -> None:
        require("[0, 1]", progress=self.progress)

    @property
    def condition(self) -> Condition | None:
        """What the teacher is asked, B rows, or None."""
        return self.sample.condition

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
            sample: what the generator made.
            t: in [0, 1]: a number, or (B,).
            epsilon: (B, *D) noise.
            schedule: alpha and sigma.
            progress, rng, shard: as of the class.

        Raises:
            ValueError: if t has another shape, or one that is on the CPU lies outside [0, 1].
        """
        x = sample.x.detach()
        t = require_times(times_of(t, x))
        at_end = schedule.touches_end(t)
        t = t.to(x.device)
        x_t = mixed(x, t, epsilon, schedule)
        return cls(x_t, t, epsilon, sample, schedule, progress, rng, shard, at_end=at_end)

    def at(self, t: Tensor, epsilon: Tensor | None = None) -> Diffused:
        """The same samples at other times, (B,), with the same noise or another, (B, *D)."""
        epsilon = self.epsilon if epsilon is None else epsilon
        x_t = mixed(self.sample.x.detach(), t, epsilon, self.schedule)
        return replace(self, x_t=x_t, t=t, epsilon=epsilon, predictions=(), at_end=self.schedule.touches_end(t))

    def under(self, condition: Condition | None) -> Diffused:
        """The same x_t under another condition, of B rows."""
        return replace(self, sample=replace(self.sample, condition=condition), predictions=())


def mixed(x: Tensor, t: Tensor, epsilon: Tensor, schedule: Schedule) -> Tensor:
    """alpha_t x + sigma_t epsilon, (B, *D), in the samples' type: times are finer than samples in half precision."""
    alpha, sigma = schedule(t)
    x_t = right_pad_dims(alpha, x) * x + right_pad_dims(sigma, x) * epsilon
    return x_t.to(torch.result_type(x, epsilon))


def _joined_where_all(values: Sequence[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.cat(given) if len(given) == len(values) else None


def _view_indices(parts: Sequence[Sample]) -> list[Tensor | None]:
    """Each part's view indices, counted on where they are those of its own cameras."""
    if any(part.condition is None or part.condition.camera is None for part in parts):
        return [part.view_index for part in parts]
    indices: list[Tensor | None] = []
    offset = 0
    for part in parts:
        own = part.x.new_zeros(len(part.x), dtype=torch.long) if part.view_index is None else part.view_index
        indices.append(own + offset)
        offset += int(own.max()) + 1
    return indices
