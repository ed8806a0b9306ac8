"""What passes between the parts: conditions, batches, samples and diffused samples.

Dimension legend, used in every shape below:

    B  samples in a batch          n  particles of a generator    V  views (cameras) of a step, B = n V
    K  components of a mixture     D  a sample's own dimensions, `*D` when they are several
    C  channels   H, W  height and width of a picture, values in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scoredistill.diffusion.schedule import Schedule
    from scoredistill.rendering.camera import Camera

Prompt = str | Sequence[str]


def right_pad_dims(value: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1), so that it multiplies `like`, (B, *D), sample by sample."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


def _rows(value: Any, index: Tensor) -> Any:
    """Select rows of one field: tensors and cameras by index, per-sample prompts one by one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return tuple(value[i] for i in index.tolist())
    return value[index]


def _moved(value: Any, device: torch.device | str) -> Any:
    return value.to(device) if hasattr(value, "to") else value


def _joined(values: Sequence[Any]) -> Any:
    """Concatenate one field of several conditions."""
    first = values[0]
    if first is None or isinstance(first, str):
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    return type(first).cat(values) if hasattr(first, "cat") else tuple(text for texts in values for text in texts)


@dataclass(frozen=True)
class Condition:
    """What a sample is asked to be. Every field is optional; a field left out is not conditioned on.

    Args:
        prompt: one text for the whole batch, or a sequence of B texts.
        negative_prompt: what guidance moves away from, in place of the unconditional model; str or B texts.
        label: (B,) integer class labels.
        camera: B cameras from which the samples are seen.
        background: (B, 3) colour in [-1, 1] behind the object, for teachers that are told it.
        embeddings: (B, L, E) text embeddings, where the caller has already encoded the prompt.
    """

    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    label: Tensor | None = None
    camera: Camera | None = None
    background: Tensor | None = None
    embeddings: Tensor | None = None

    @property
    def rows(self) -> int | None:
        """Number of rows, or None where nothing in the condition is given row by row."""
        for value in (self.label, self.camera, self.background, self.embeddings):
            if value is not None:
                return len(value)
        prompts = [p for p in (self.prompt, self.negative_prompt) if p is not None and not isinstance(p, str)]
        return len(prompts[0]) if prompts else None

    def negative(self) -> Condition:
        """The condition of guidance's other branch: same camera and background, negative prompt or none."""
        return Condition(prompt=self.negative_prompt, camera=self.camera, background=self.background)

    def with_prompt(self, prompt: Prompt | None) -> Condition:
        """The same condition under another prompt."""
        return replace(self, prompt=prompt)

    def __getitem__(self, index: Tensor) -> Condition:
        """Rows of the batch, by an index tensor of any length."""
        return Condition(**{f.name: _rows(getattr(self, f.name), index) for f in fields(self)})

    @classmethod
    def cat(cls, parts: Sequence[Condition | None]) -> Condition | None:
        """Join the rows of several conditions that have the same fields; texts for a whole batch must agree."""
        given = [part for part in parts if part is not None]
        if len(given) != len(parts):
            return None
        return cls(**{f.name: _joined([getattr(part, f.name) for part in given]) for f in fields(cls)})

    def to(self, device: torch.device | str) -> Condition:
        """Move tensors and cameras to a device."""
        return Condition(**{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})


@dataclass(frozen=True)
class Batch:
    """What a data module hands to one update.

    Args:
        condition: what to generate; for 3D generators its camera has V rows, each seen by every particle.
        size: number of samples to generate, for generators from noise.
        data: (B, *D) real samples, for objectives that look at data.
    """

    condition: Condition | None = None
    size: int | None = None
    data: Tensor | None = None

    def split(self, parts: int) -> list[Batch]:
        """Cut into consecutive micro-batches of (nearly) equal size.

        Raises:
            ValueError: if there are fewer rows than parts, or no rows at all.
        """
        rows = self.size if self.condition is None or self.condition.rows is None else self.condition.rows
        if rows is None or rows < parts:
            raise ValueError(f"a batch of {rows or 'no'} rows cannot be split into {parts} micro-batches")
        return [self._rows(index) for index in torch.arange(rows).tensor_split(parts)]

    def _rows(self, index: Tensor) -> Batch:
        condition = None if self.condition is None else self.condition[index]
        return Batch(condition, None if self.size is None else len(index), _rows(self.data, index))

    def to(self, device: torch.device | str) -> Batch:
        """Move everything to a device."""
        return Batch(_moved(self.condition, device), self.size, _moved(self.data, device))


@dataclass(frozen=True)
class Sample:
    """What a generator made.

    Args:
        x: (B, *D) clean samples, differentiable in the generator's parameters.
        condition: what each of the B samples was asked to be, row by row.
        particle: (B,) index of the particle that made each sample, or None.
        view: (B,) samples of equal index were made under one condition (one camera, one label) and differ only in the
            particle; None: all of them.
        population: (M, *D) samples that stand for the generator's whole distribution, with `population_view` (M,),
            where the batch itself does not hold every particle; None: the batch is the population.
        epsilon: (B, *D) the noise that was injected when it was diffused, or None.
        regulariser: scalar penalty that the generator puts on itself, or None.
    """

    x: Tensor
    condition: Condition | None = None
    particle: Tensor | None = None
    view: Tensor | None = None
    population: Tensor | None = None
    population_view: Tensor | None = None
    epsilon: Tensor | None = None
    regulariser: Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence[Sample]) -> Sample:
        """Join samples of several micro-batches of different conditions, which stay apart as views."""
        view, offset = [], 0
        for part in parts:
            own = part.x.new_zeros(len(part.x), dtype=torch.long) if part.view is None else part.view
            view.append(own + offset)
            offset = int(view[-1].max()) + 1
        particles = [part.particle for part in parts if part.particle is not None]
        penalties = [part.regulariser * len(part.x) for part in parts if part.regulariser is not None]
        return cls(
            torch.cat([part.x for part in parts]),
            Condition.cat([part.condition for part in parts]),
            particle=torch.cat(particles) if len(particles) == len(parts) else None,
            view=torch.cat(view),
            regulariser=torch.stack(penalties).sum() / sum(len(part.x) for part in parts) if penalties else None,
        )


@dataclass(frozen=True)
class Noised:
    """A sample diffused to time t: x_t = alpha_t x + sigma_t epsilon. All that a loss may look at.

    Args:
        x_t: (B, *D).
        t: (B,) in [0, 1].
        epsilon: (B, *D), the noise that was injected.
        condition: what the teacher is asked, B rows, or None.
        sample: the clean sample it came from.
        schedule: alpha and sigma.
    """

    x_t: Tensor
    t: Tensor
    epsilon: Tensor
    condition: Condition | None
    sample: Sample
    schedule: Schedule

    @classmethod
    def diffuse(cls, sample: Sample, t: Tensor, epsilon: Tensor, schedule: Schedule) -> Noised:
        """x_t = alpha_t x + sigma_t epsilon, detached from the generator."""
        x = sample.x.detach()
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x_t = right_pad_dims(alpha, x) * x + right_pad_dims(sigma, x) * epsilon
        return cls(x_t, t, epsilon, sample.condition, replace(sample, epsilon=epsilon), schedule)
