"""Laws of guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.prediction import Prediction, PredictionType
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import (
    DTYPES,
    agree,
    ends,
    finite_or_refused,
    has_shape,
    hold,
    is_finite,
    rng,
    run,
)
from scoredistill.testing.reference import PROMPTED, ReferenceTeacher, WithPrediction
from scoredistill.types import Condition

ROWS = 6
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "x0", "v", "flow", "score")


@dataclass(frozen=True)
class Setting:
    """Guidance, and what it is checked with; see `check_guidance`."""

    guidance: Guidance
    neutral: Guidance | None
    shape: tuple[int, ...]
    teacher: Teacher
    condition: Condition
    may_refuse: bool

    def batch(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """x_t, (B, *D), and t, (B,)."""
        numbers = rng(1)
        x_t = torch.randn(ROWS, *self.shape, generator=numbers)
        t = 0.05 + 0.9 * torch.rand(ROWS, generator=numbers)
        return x_t.to(dtype), t.to(dtype)

    def guided(self, dtype: torch.dtype = torch.float64, teacher: Teacher | None = None) -> Prediction:
        """The guided prediction at the batch."""
        teacher = deepcopy(teacher or self.teacher).to(dtype)
        x_t, t = self.batch(dtype)
        return self.guidance(teacher, x_t, t, teacher.encode_prompt(self.condition, ROWS))


def check_guidance(
    guidance: Guidance,
    *,
    neutral: Guidance | None = None,
    shape: Sequence[int] = (2,),
    teacher: Teacher | None = None,
    condition: Condition = PROMPTED,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check guidance against the laws that every one satisfies.

    Args:
        guidance: what is checked.
        neutral: the same guidance at the setting that gives the conditional model itself, `CFG(1)` for example; None:
            there is no such setting.
        shape: *D, the shape of one sample, >= 1.
        teacher: a small model of p; None: a `ReferenceTeacher` of that shape.
        condition: of six rows.
        may_refuse: whether the guided prediction may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    reference = teacher or ReferenceTeacher(shape)
    run(guidance, Setting(guidance, neutral, tuple(shape), reference, condition, may_refuse), LAWS, laws, skip)


def shape_and_type(setting: Setting) -> None:
    """The guided prediction is one at x_t and t, in the samples' shape and floating-point type."""
    for dtype in DTYPES:
        x_t, t = setting.batch(dtype)
        guided = setting.guided(dtype)
        hold(isinstance(guided, Prediction), f"combine returns a {type(guided).__name__} and no Prediction")
        agree(guided.x_t, x_t, "x_t of the guided prediction")
        agree(guided.t, t, "t of the guided prediction")
        has_shape(guided.epsilon, x_t.shape, "epsilon")
        hold(guided.epsilon.dtype == dtype, f"epsilon at {dtype} samples is {guided.epsilon.dtype}")
        is_finite(guided.epsilon, f"epsilon in {dtype}")


def conditions_are_the_same_each_time(setting: Setting) -> None:
    """`conditions` gives at least one condition, and the same number each time, of B rows or for all rows."""
    teacher = setting.teacher
    counts = []
    condition = teacher.encode_prompt(setting.condition, ROWS)
    for _ in range(2):
        conditions = setting.guidance.conditions(condition, teacher, ROWS)
        counts.append(len(conditions))
        for index, each in enumerate(conditions):
            rows = None if each is None else each.rows
            hold(rows in (None, ROWS), f"condition {index} has {rows} rows and must have {ROWS}")
    hold(counts[0] > 0, "there is no condition")
    hold(counts[0] == counts[1], f"there are {counts[0]} conditions the first time and {counts[1]} the second")


def one_by_one(setting: Setting) -> None:
    """The guided prediction at a batch is that at its samples one by one."""
    teacher = setting.teacher.to(torch.float64)
    x_t, t = setting.batch()
    rows = []
    for i in torch.arange(ROWS).split(1):
        condition = teacher.encode_prompt(setting.condition[i], 1)
        rows.append(setting.guidance(teacher, x_t[i], t[i], condition).epsilon)
    agree(torch.cat(rows), setting.guided().epsilon, "epsilon at single samples", rtol=1e-10, atol=1e-12)


def prediction_type(setting: Setting) -> None:
    """The guided prediction does not depend on whether the teacher predicts epsilon, x0, v, flow or score."""
    first = setting.guided().epsilon
    for kind in PREDICTIONS:
        epsilon = setting.guided(teacher=WithPrediction(setting.teacher, kind)).epsilon
        agree(epsilon, first, f"epsilon for a teacher that predicts {kind}", rtol=1e-8, atol=1e-9)


def no_difference_no_guidance(setting: Setting) -> None:
    """Where the teacher's predictions are the same under all conditions, the guided prediction is that one."""
    x_t, t = setting.batch()
    teacher = Unconditional(setting.teacher)
    condition = setting.teacher.encode_prompt(setting.condition, ROWS)
    guided = setting.guidance(teacher, x_t, t, condition)
    agree(guided.epsilon, teacher(x_t, t).epsilon, "epsilon", rtol=1e-10, atol=1e-12)


def neutral_is_the_conditional_model(setting: Setting) -> None:
    """The neutral setting gives the conditional model itself."""
    if setting.neutral is None:
        return
    x_t, t = setting.batch()
    guided = replace(setting, guidance=setting.neutral).guided()
    condition = setting.teacher.encode_prompt(setting.condition, ROWS)
    agree(guided.epsilon, setting.teacher(x_t, t, condition).epsilon, "epsilon", rtol=1e-10, atol=1e-12)


def ends_of_time(setting: Setting) -> None:
    """The guided prediction is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    for dtype in DTYPES:
        teacher = deepcopy(setting.teacher).to(dtype)
        x_t = setting.batch(dtype)[0][:1]
        condition = teacher.encode_prompt(setting.condition[torch.arange(1)], 1)
        for t in ends(dtype).split(1):
            what = f"epsilon in {dtype} at t = {float(t)!r}"
            finite_or_refused(what, setting.may_refuse, dtype, _epsilon, setting.guidance, teacher, x_t, t, condition)


def _epsilon(guidance: Guidance, teacher: Teacher, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    return guidance(teacher, x_t, t, condition).epsilon


class Unconditional(WithPrediction):
    """A teacher that ignores its condition.

    Args:
        teacher: the model of p.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher, "epsilon")

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.teacher(x_t, t, None)

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        return [self(x_t, t) for _ in conditions]


LAWS = (
    shape_and_type,
    conditions_are_the_same_each_time,
    one_by_one,
    prediction_type,
    no_difference_no_guidance,
    neutral_is_the_conditional_model,
    ends_of_time,
)
