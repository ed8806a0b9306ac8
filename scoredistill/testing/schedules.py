"""Laws of noise schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from scoredistill.diffusion.schedule import Schedule
from scoredistill.testing.law import (
    DTYPES,
    agree,
    ends,
    has_shape,
    hold,
    is_finite,
    run,
)


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
    run(schedule, schedule, LAWS, laws, skip)


def shape_and_type(schedule: Schedule) -> None:
    """alpha, sigma and log_snr keep shape and type of (B,) times; a number gives a float64 without dimensions."""
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
    """alpha and sigma are finite and at least 0, and not both 0."""
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
    """alpha, sigma and log_snr in float32 are those in float64, up to rounding."""
    t = torch.linspace(0.01, 0.99, 99)
    for name in ("alpha", "sigma", "log_snr"):
        function = getattr(schedule, name)
        agree(function(t.float()), function(t.float().double()), f"{name} in float32", rtol=1e-5, atol=1e-5)


LAWS = (shape_and_type, not_negative, noise_grows, inverse, together, single_precision)
