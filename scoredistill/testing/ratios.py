"""Laws of density ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.critics import Setting, rows_of
from scoredistill.testing.law import DTYPES, agree, ends, finite_or_refused, has_shape, hold, is_finite, run, unchanged
from scoredistill.testing.reference import ReferenceTeacher
from scoredistill.testing.trained import require_trainable
from scoredistill.types import Condition


def check_ratio(
    ratio: DensityRatio,
    *,
    critic: Critic | None = None,
    shape: Sequence[int] = (2,),
    teacher: Teacher | None = None,
    condition: Condition | None = None,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a density ratio against the laws that every one satisfies. The ratio itself is not changed.

    Args:
        ratio: what is checked.
        critic: the model of q that it is used with; None: none.
        shape: *D, the shape of one sample, >= 1.
        teacher: a small model of p; None: a `ReferenceTeacher` of that shape.
        condition: of six rows; None: unconditional.
        may_refuse: whether log r may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    reference = teacher or ReferenceTeacher(shape)
    run(ratio, Setting(critic, ratio, tuple(shape), reference, condition, may_refuse), LAWS, laws, skip)


def shape_and_type(setting: Setting) -> None:
    """log r is one finite number per sample, in the samples' floating-point type."""
    for dtype in DTYPES:
        critic, ratio, teacher = setting.bound(dtype)
        assert ratio is not None
        diffused = setting.diffused(teacher, dtype=dtype)
        log_r = ratio(diffused, teacher, critic)
        has_shape(log_r, diffused.t.shape, "log r")
        hold(log_r.dtype == dtype, f"log r at {dtype} samples is {log_r.dtype}")
        is_finite(log_r, f"log r in {dtype}")


def no_side_effects(setting: Setting) -> None:
    """log r changes no parameter, buffer or mode, and a second evaluation is the same."""
    critic, ratio, teacher = setting.bound()
    assert ratio is not None
    diffused = setting.diffused(teacher)
    with unchanged(ratio, teacher, *([] if critic is None else [critic]), what="log r"):
        first = ratio(diffused, teacher, critic)
    agree(ratio(diffused, teacher, critic), first, "log r, evaluated a second time,")


def one_by_one(setting: Setting) -> None:
    """log r of a batch is that of its samples one by one."""
    critic, ratio, teacher = setting.bound()
    assert ratio is not None
    diffused = setting.diffused(teacher)
    rows = torch.cat([ratio(row, teacher, critic) for row in rows_of(diffused)])
    agree(rows, ratio(diffused, teacher, critic), "log r of single samples", rtol=1e-10, atol=1e-12)


def ends_of_time(setting: Setting) -> None:
    """log r is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    for dtype in DTYPES:
        critic, ratio, teacher = setting.bound(dtype)
        assert ratio is not None
        for row in rows_of(setting.diffused(teacher, ends(dtype), dtype)):
            what = f"log r in {dtype} at t = {float(row.t)!r}"
            finite_or_refused(what, setting.may_refuse, dtype, ratio, row, teacher, critic)


def trainable(setting: Setting) -> None:
    """A trained ratio has an error per sample; its gradient reaches the ratio, and a step along it lowers it."""
    _, ratio, teacher = setting.bound()
    if isinstance(ratio, TrainedPart):
        require_trainable(ratio, lambda: setting.diffused(teacher), teacher)


LAWS = (shape_and_type, no_side_effects, one_by_one, ends_of_time, trainable)
