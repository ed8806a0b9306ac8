"""Laws of samplers of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import Schedule
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.testing.law import (
    agree,
    global_numbers_untouched,
    has_shape,
    hold,
    is_finite,
    rng,
    run,
)
from scoredistill.testing.weights import SCHEDULES


@dataclass(frozen=True)
class Setting:
    """A sampler of times, and the schedules that it is checked with."""

    timesteps: TimestepSampler
    schedules: Sequence[Schedule]
    may_refuse: bool


def check_timesteps(
    timesteps: TimestepSampler,
    *,
    schedules: Sequence[Schedule] = SCHEDULES,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a sampler of times against the laws that every one satisfies.

    Args:
        timesteps: what is checked.
        schedules: the noise schedules that it is checked with.
        may_refuse: whether a schedule may be refused by a `ValueError`.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    run(timesteps, Setting(timesteps, schedules, may_refuse), LAWS, laws, skip)


def _draw(setting: Setting, n: int, schedule: Schedule, progress: float, seed: int = 0) -> Tensor | None:
    """Times, or None where they are refused."""
    try:
        return setting.timesteps(n, schedule, progress, rng(seed))
    except ValueError as error:
        hold(setting.may_refuse, f"{type(schedule).__name__} is refused: {error}")
        return None


def in_range(setting: Setting) -> None:
    """n times are (n,) in float64, in [0, 1], whatever the progress."""
    for schedule in setting.schedules:
        for progress in (0.0, 0.5, 1.0):
            t = _draw(setting, 100, schedule, progress)
            under = f"t under {type(schedule).__name__}"
            if t is None:
                continue
            has_shape(t, (100,), under)
            hold(t.dtype == torch.float64, f"{under} is {t.dtype} and must be torch.float64")
            is_finite(t, under)
            message = f"{under} is in [{float(t.min()):g}, {float(t.max()):g}] at progress {progress:g}"
            hold(bool((t >= 0).all() and (t <= 1).all()), message)


def determined_by_rng(setting: Setting) -> None:
    """With the same rng the times are the same bit for bit, and torch's global random numbers are not used."""
    for schedule in setting.schedules:
        with global_numbers_untouched("the sampler"):
            first = _draw(setting, 20, schedule, 0.5)
        if first is not None:
            second = _draw(setting, 20, schedule, 0.5)
            assert second is not None
            agree(second, first, f"t under {type(schedule).__name__}, drawn a second time,")


LAWS = (in_range, determined_by_rng)
