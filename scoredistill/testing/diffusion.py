"""Laws of noise schedules, time weights and samplers of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.diffusion.weights import TimeWeight
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
)

SCHEDULES: tuple[Schedule, ...] = (CosineSchedule(), LinearSchedule(), EDMSchedule(), FlowSchedule())


def check_schedule(
    schedule: Schedule, *, laws: Sequence[str] | None = None, skip: Mapping[str, str] | None = None
) -> None:
    """Check a noise schedule against the laws that every one satisfies.

    Args:
        schedule: what is checked.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    run(schedule, schedule, SCHEDULE_LAWS, laws, skip)


def shape_and_type(schedule: Schedule) -> None:
    """Alpha, sigma and log_snr keep shape and type of (B,) times; a number gives a float64 without dimensions."""
    functions = {"alpha": schedule.alpha, "sigma": schedule.sigma, "log_snr": schedule.log_snr}
    for name, function in functions.items():
        for dtype in DTYPES:
            t = torch.linspace(0, 1, 5, dtype=dtype)
            has_shape(function(t), t.shape, f"{name} of 5 times")
            hold(function(t).dtype == dtype, f"{name} of {dtype} times is {function(t).dtype}")
        for number in (0, 0.25, 1.0):
            value = function(number)
            has_shape(value, (), f"{name}({number})")
            hold(value.dtype == torch.float64, f"{name}({number}) is {value.dtype} and must be torch.float64")
            agree(value, function(torch.tensor([float(number)]))[0], f"{name}({number}), against a tensor,")


def not_negative(schedule: Schedule) -> None:
    """Alpha and sigma are finite and at least 0, and not both 0."""
    for dtype in DTYPES:
        t = torch.cat([ends(dtype), torch.linspace(0, 1, 101, dtype=dtype)])
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        for name, value in {"alpha": alpha, "sigma": sigma}.items():
            is_finite(value, f"{name} in {dtype}")
            worst = int(value.argmin())
            hold(bool(value[worst] >= 0), f"{name}({float(t[worst]):g}) = {float(value[worst]):.3g} in {dtype}")
        total = alpha + sigma
        hold(bool((total > 0).all()), f"alpha = sigma = 0 at t = {float(t[int(total.argmin())]):g}")


def noise_grows(schedule: Schedule) -> None:
    """log_snr falls as t grows, and is finite at both ends."""
    for dtype in DTYPES:
        is_finite(schedule.log_snr(ends(dtype)), f"log_snr in {dtype}")
        rise = float(schedule.log_snr(ends(dtype)).diff().max())
        hold(rise <= 0, f"log_snr rises by {rise:.3g} near an end of time in {dtype}")
    t = torch.linspace(1e-4, 1 - 1e-4, 2001)
    change = schedule.log_snr(t).diff()
    worst = int(change.argmax())
    hold(bool(change[worst] < 0), f"log_snr changes by {float(change[worst]):.3g} after t = {float(t[worst]):.4g}")


def inverse(schedule: Schedule) -> None:
    """t_at_log_snr is the inverse of log_snr, and is clamped to [0, 1] beyond its range."""
    t = torch.linspace(1e-3, 1 - 1e-3, 999)
    agree(schedule.t_at_log_snr(schedule.log_snr(t)), t, "t_at_log_snr(log_snr(t))", rtol=1e-10)
    for dtype in DTYPES:
        t = ends(dtype)
        back = schedule.t_at_log_snr(schedule.log_snr(t))
        hold(back.dtype == dtype, f"t_at_log_snr of {dtype} is {back.dtype}")
        hold(bool(((back >= 0) & (back <= 1)).all()), f"t_at_log_snr leaves [0, 1] in {dtype}: {back.tolist()}")
        # The log-SNR is rounded relative to itself, and moves t by less than that; the inverse rounds a few times more.
        agree(back, t, f"t_at_log_snr(log_snr(t)) near the ends in {dtype}", atol=4 * torch.finfo(dtype).eps)
    beyond = schedule.t_at_log_snr(torch.tensor([1e4, -1e4]))
    agree(beyond, torch.tensor([0.0, 1.0]), "t_at_log_snr of 1e4 and -1e4", atol=1e-9)


def together(schedule: Schedule) -> None:
    """schedule(t) is alpha and sigma at t, also after t has been changed in place."""
    t = torch.linspace(0, 1, 5)
    for _ in range(2):
        for name, value, alone in zip(
            ("alpha", "sigma"), schedule(t), (schedule.alpha(t), schedule.sigma(t)), strict=True
        ):
            agree(value, alone, f"{name} of schedule(t)")
        t.mul_(0.5)


def single_precision(schedule: Schedule) -> None:
    """Alpha, sigma and log_snr in float32 are those in float64, up to rounding."""
    t = torch.linspace(0.01, 0.99, 99)
    for name in ("alpha", "sigma", "log_snr"):
        function = getattr(schedule, name)
        agree(function(t.float()), function(t.float().double()), f"{name} in float32", rtol=1e-5, atol=1e-5)


SCHEDULE_LAWS = (shape_and_type, not_negative, noise_grows, inverse, together, single_precision)


@dataclass(frozen=True)
class TimeSetting:
    """A weight or a sampler, and the schedules that it is checked with."""

    weight: TimeWeight | None
    timesteps: TimestepSampler | None
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
    run(weight, TimeSetting(weight, None, schedules, may_refuse), WEIGHT_LAWS, laws, skip)


def weight_shape_and_type(setting: TimeSetting) -> None:
    """W is one finite number per time, at least 0, in the times' floating-point type."""
    assert setting.weight is not None
    for schedule in setting.schedules:
        for dtype in DTYPES:
            t, under = torch.linspace(0.05, 0.95, 10, dtype=dtype), f"w under {type(schedule).__name__} in {dtype}"
            w = setting.weight(t, schedule)
            has_shape(w, t.shape, under)
            hold(w.dtype == dtype, f"{under} is {w.dtype}")
            is_finite(w, under)
            hold(bool((w >= 0).all()), f"{under} is {float(w.min()):.3g} at t = {float(t[int(w.argmin())]):g}")


def weight_one_by_one(setting: TimeSetting) -> None:
    """W of several times is that of each alone."""
    assert setting.weight is not None
    t = torch.linspace(0.05, 0.95, 10)
    for schedule in setting.schedules:
        rows = torch.cat([setting.weight(each, schedule) for each in t.split(1)])
        agree(setting.weight(t, schedule), rows, f"w under {type(schedule).__name__}", rtol=1e-12)


def weight_ends_of_time(setting: TimeSetting) -> None:
    """W is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    weight = setting.weight
    assert weight is not None
    for schedule in setting.schedules:
        for dtype in DTYPES:
            for t in ends(dtype).split(1):
                what = f"w under {type(schedule).__name__} in {dtype} at t = {float(t)!r}"
                finite_or_refused(what, setting.may_refuse, dtype, weight, t, schedule)


WEIGHT_LAWS = (weight_shape_and_type, weight_one_by_one, weight_ends_of_time)


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
    run(timesteps, TimeSetting(None, timesteps, schedules, may_refuse), TIMESTEP_LAWS, laws, skip)


def _draw(setting: TimeSetting, n: int, schedule: Schedule, progress: float, seed: int = 0) -> Tensor | None:
    """Times, or None where they are refused."""
    assert setting.timesteps is not None
    try:
        return setting.timesteps(n, schedule, progress, rng(seed))
    except ValueError as error:
        hold(setting.may_refuse, f"{type(schedule).__name__} is refused: {error}")
        return None


def times_in_range(setting: TimeSetting) -> None:
    """n times are (n,) in float64, in [0, 1], whatever the progress."""
    for schedule in setting.schedules:
        for progress in (0.0, 0.5, 1.0):
            t, under = _draw(setting, 100, schedule, progress), f"t under {type(schedule).__name__}"
            if t is None:
                continue
            has_shape(t, (100,), under)
            hold(t.dtype == torch.float64, f"{under} is {t.dtype} and must be torch.float64")
            is_finite(t, under)
            message = f"{under} is in [{float(t.min()):g}, {float(t.max()):g}] at progress {progress:g}"
            hold(bool((t >= 0).all() and (t <= 1).all()), message)


def times_determined_by_rng(setting: TimeSetting) -> None:
    """With the same rng the times are the same bit for bit, and torch's global random numbers are not used."""
    for schedule in setting.schedules:
        with global_numbers_untouched("the sampler"):
            first = _draw(setting, 20, schedule, 0.5)
        if first is not None:
            second = _draw(setting, 20, schedule, 0.5)
            assert second is not None
            agree(second, first, f"t under {type(schedule).__name__}, drawn a second time,")


TIMESTEP_LAWS = (times_in_range, times_determined_by_rng)
