"""Laws of time weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from scoredistill.diffusion.schedule import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.testing.law import (
    DTYPES,
    agree,
    ends,
    finite_or_refused,
    has_shape,
    hold,
    is_finite,
    run,
)

SCHEDULES: tuple[Schedule, ...] = (CosineSchedule(), LinearSchedule(), EDMSchedule(), FlowSchedule())
"""The noise schedules that a part is checked with."""


@dataclass(frozen=True)
class Setting:
    """A weight w(t), and the schedules that it is checked with."""

    weight: TimeWeight
    schedules: Sequence[Schedule]
    may_refuse: bool


def check_time_weight(
    weight: TimeWeight,
    *,
    schedules: Sequence[Schedule] = SCHEDULES,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a weight w(t) against the laws that every one satisfies.

    Args:
        weight: what is checked.
        schedules: the noise schedules that it is checked with.
        may_refuse: whether w may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    run(weight, Setting(weight, schedules, may_refuse), LAWS, laws, skip)


def shape_and_type(setting: Setting) -> None:
    """w is one finite number per time, at least 0, in the times' floating-point type."""
    for schedule in setting.schedules:
        for dtype in DTYPES:
            t = torch.linspace(0.05, 0.95, 10, dtype=dtype)
            under = f"w under {type(schedule).__name__} in {dtype}"
            w = setting.weight(t, schedule)
            has_shape(w, t.shape, under)
            hold(w.dtype == dtype, f"{under} is {w.dtype}")
            is_finite(w, under)
            hold(bool((w >= 0).all()), f"{under} is {float(w.min()):.3g} at t = {float(t[int(w.argmin())]):g}")


def one_by_one(setting: Setting) -> None:
    """w of several times is that of each alone."""
    t = torch.linspace(0.05, 0.95, 10)
    for schedule in setting.schedules:
        rows = torch.cat([setting.weight(each, schedule) for each in t.split(1)])
        agree(setting.weight(t, schedule), rows, f"w under {type(schedule).__name__}", rtol=1e-12)


def ends_of_time(setting: Setting) -> None:
    """w is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    for schedule in setting.schedules:
        for dtype in DTYPES:
            for t in ends(dtype).split(1):
                what = f"w under {type(schedule).__name__} in {dtype} at t = {float(t)!r}"
                finite_or_refused(what, setting.may_refuse, dtype, setting.weight, t, schedule)


LAWS = (shape_and_type, one_by_one, ends_of_time)
