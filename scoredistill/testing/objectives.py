"""Laws of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.prediction import PredictionType
from scoredistill.distiller import Distiller, Step
from scoredistill.generators.image import ImageParticles
from scoredistill.losses.objective import Objective
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import (
    DTYPES,
    agree,
    ends,
    finite_or_refused,
    global_numbers_untouched,
    has_shape,
    hold,
    is_finite,
    rng,
    run,
    unchanged,
)
from scoredistill.testing.reference import PROMPTED, ReferenceTeacher, WithPrediction
from scoredistill.testing.trained import require_trainable
from scoredistill.types import Condition, Diffused, Sample

ROWS = 6
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "x0", "v", "flow", "score")


@dataclass(frozen=True)
class Setting:
    """An objective and what it is checked with; see `check_objective`."""

    loss: Objective
    shape: tuple[int, ...]
    teacher: Teacher
    condition: Condition | None
    guidance: Guidance | None
    may_refuse: bool

    def distiller(self, dtype: torch.dtype = torch.float64, teacher: Teacher | None = None) -> Distiller:
        """A distiller of copies."""
        x = torch.zeros(1, *self.shape)
        parts = deepcopy((teacher or self.teacher, self.loss, self.guidance))
        return Distiller(ImageParticles(x), *parts).to(dtype)

    def sample(self, distiller: Distiller, dtype: torch.dtype = torch.float64, rows: int = ROWS) -> Sample:
        """Clean samples with a condition, particles, a population, real data and the noise that they were made from."""
        numbers = rng(1)
        x, data, noise = (torch.randn(rows, *self.shape, generator=numbers).to(dtype) for _ in range(3))
        condition = (
            self.condition if rows == ROWS or self.condition is None else self.condition[torch.arange(rows) % ROWS]
        )
        condition = distiller.teacher.encode_prompt(condition, rows)
        views = None if condition is None else condition.views
        return Sample(
            x,
            condition,
            particle=torch.arange(rows),
            view_index=views,
            population=x,
            population_view_index=views,
            noise=noise,
            target=data,
            data=data,
        )

    def times(self) -> tuple[Tensor, Tensor]:
        """Times away from the ends, (B,), and noise, (B, *D)."""
        numbers = rng(2)
        return 0.05 + 0.9 * torch.rand(ROWS, generator=numbers), torch.randn(ROWS, *self.shape, generator=numbers)

    def step(self, distiller: Distiller, seed: int = 0) -> Step:
        """The objective at a batch."""
        t, epsilon = self.times()
        return distiller.evaluate(self.sample(distiller), t=t, epsilon=epsilon, progress=0.5, rng=rng(seed))

    def diffused(self, distiller: Distiller, seed: int = 0) -> Diffused:
        """The batch, diffused."""
        t, epsilon = self.times()
        return distiller.diffuse(self.sample(distiller), distiller.timesteps, t, epsilon, 0.5, rng(seed))


def check_objective(
    loss: Objective,
    *,
    shape: Sequence[int] = (2,),
    teacher: Teacher | None = None,
    condition: Condition | None = PROMPTED,
    guidance: Guidance | None = None,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check an objective against the laws that every one satisfies. The objective itself is not changed.

    Args:
        loss: what is checked.
        shape: *D, the shape of one sample, >= 1.
        teacher: a small model of p; None: a `ReferenceTeacher` of that shape.
        condition: of six rows; None: unconditional.
        guidance: how the teacher is called; None: CFG of scale 1.
        may_refuse: whether the gradient may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason: `one_by_one` for a batch statistic, for example;
            None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    reference = teacher or ReferenceTeacher(shape)
    run(loss, Setting(loss, tuple(shape), reference, condition, guidance, may_refuse), LAWS, laws, skip)


def shape_and_type(setting: Setting) -> None:
    """The gradient has the samples' shape and floating-point type, and every metric is a finite scalar."""
    for dtype in DTYPES:
        distiller = setting.distiller(dtype)
        t, epsilon = setting.times()
        sample = setting.sample(distiller, dtype)
        step = distiller.evaluate(sample, t=t.to(dtype), epsilon=epsilon.to(dtype), rng=rng())
        g = step.gradient.g
        has_shape(g, sample.x.shape, "g")
        hold(g.dtype == dtype, f"g of {dtype} samples is {g.dtype}")
        is_finite(g, f"g in {dtype}")
        for name, value in step.gradient.report().items():
            has_shape(value, (), f"the metric {name}")
            is_finite(value, f"the metric {name}")


def no_graph(setting: Setting) -> None:
    """The gradient and its parts have no graph."""
    gradient = setting.step(setting.distiller()).gradient
    parts = {"g": gradient.g, "h": gradient.reweighting.h, "the factor": gradient.factor, **gradient.metrics}
    parts |= {} if gradient.target is None else {"the target": gradient.target.value}
    parts |= {} if gradient.baseline is None else {"the baseline": gradient.baseline}
    for name, value in parts.items():
        hold(not value.requires_grad, f"{name} requires a gradient; compute it without one, or detach it")


def no_side_effects(setting: Setting) -> None:
    """A gradient changes no parameter, buffer, mode or .grad of the loss, the teacher and the generator."""
    distiller = setting.distiller()
    with unchanged(distiller, what="a gradient"):
        setting.step(distiller)


def determined_by_rng(setting: Setting) -> None:
    """With the same rng the gradient is the same bit for bit, and torch's global random numbers are not used."""
    distiller = setting.distiller()
    with global_numbers_untouched("the gradient"):
        first = setting.step(distiller).gradient.g
    agree(setting.step(distiller).gradient.g, first, "g, evaluated a second time,")


def surrogate(setting: Setting) -> None:
    """The gradient of the scalar surrogate at sample b is g_b / B."""
    distiller = setting.distiller()
    sample = setting.sample(distiller)
    sample.x.requires_grad_()
    t, epsilon = setting.times()
    step = distiller.evaluate(sample, t=t, epsilon=epsilon, progress=0.5, rng=rng())
    step.loss.backward()
    expected = step.gradient.g + (0 if step.gradient.picture is None else step.gradient.picture)
    hold(sample.x.grad is not None, "the surrogate has no gradient in x")
    assert sample.x.grad is not None
    agree(sample.x.grad, expected / len(sample.x), "the surrogate's gradient", rtol=1e-12, atol=1e-15)


def prediction_type(setting: Setting) -> None:
    """The gradient does not depend on whether the teacher predicts epsilon, x0, v, flow or score."""
    first: Tensor | None = None
    for kind in PREDICTIONS:
        teacher = WithPrediction(setting.teacher, kind)
        g = setting.step(setting.distiller(teacher=teacher)).gradient.g
        first = g if first is None else first
        agree(g, first, f"g for a teacher that predicts {kind} in place of {PREDICTIONS[0]}", rtol=1e-8, atol=1e-9)


def one_by_one(setting: Setting) -> None:
    """The gradient of a batch is that of its samples one by one."""
    distiller = setting.distiller()
    t, epsilon = setting.times()
    sample = setting.sample(distiller)
    batch = setting.step(distiller).gradient.g
    rows = [
        distiller.evaluate(sample[i], t=t[i], epsilon=epsilon[i], progress=0.5, rng=rng()).gradient.g
        for i in torch.arange(ROWS).split(1)
    ]
    agree(torch.cat(rows), batch, "g of single samples, against the batch's,", rtol=1e-10, atol=1e-12)


def single_precision(setting: Setting) -> None:
    """The gradient in float32 is that in float64, up to rounding."""
    exact = setting.step(setting.distiller()).gradient.g
    distiller = setting.distiller(torch.float32)
    t, epsilon = (each.float() for each in setting.times())
    sample = setting.sample(distiller, torch.float32)
    g = distiller.evaluate(sample, t=t, epsilon=epsilon, progress=0.5, rng=rng()).gradient.g
    agree(g, exact, "g in float32, against float64,", rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


def ends_of_time(setting: Setting) -> None:
    """The gradient is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    for dtype in DTYPES:
        distiller = setting.distiller(dtype)
        at = ends(dtype)
        sample = setting.sample(distiller, dtype, len(at))
        epsilon = torch.randn(len(at), *setting.shape, generator=rng(3)).to(dtype)
        for i in torch.arange(len(at)).split(1):
            what = f"g in {dtype} at t = {float(at[i])!r}"
            arguments = distiller, sample[i], at[i], epsilon[i]
            finite_or_refused(what, setting.may_refuse, dtype, _gradient, *arguments)


def _gradient(distiller: Distiller, sample: Sample, t: Tensor, epsilon: Tensor) -> Tensor:
    return distiller.evaluate(sample, t=t, epsilon=epsilon, rng=rng()).gradient.g


def observe(setting: Setting) -> None:
    """After `observe` has received a step, the gradient is finite and has the same shape."""
    distiller = setting.distiller()
    step = setting.step(distiller)
    with unchanged(distiller.teacher, what="observe"):
        distiller.loss.observe(step.diffused, step.gradient)
    g = setting.step(distiller).gradient.g
    has_shape(g, step.gradient.g.shape, "g after observe")
    is_finite(g, "g after observe")


def trained_parts(setting: Setting) -> None:
    """Each trained part has an error per sample; its gradient reaches the part alone, and a step along it lowers it."""
    distiller = setting.distiller()
    for part in (*distiller.critics, *distiller.discriminators):
        require_trainable(part, lambda: setting.diffused(distiller), distiller.teacher)


LAWS = (
    shape_and_type,
    no_graph,
    no_side_effects,
    determined_by_rng,
    surrogate,
    prediction_type,
    one_by_one,
    single_precision,
    ends_of_time,
    observe,
    trained_parts,
)
