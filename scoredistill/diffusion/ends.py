"""The ends of time, where a schedule has no noise or no signal, and some quantities have no value.

A quantity that has a limit there takes it. One that has none is refused by an error where its time is on the CPU. On an
accelerator that would wait for the device at every step; there the gradient is checked if a time that was drawn lies at
an end (`Noised.at_end`).
"""

from __future__ import annotations

from torch import Tensor

from scoredistill.diffusion.schedule import VANISHING, Schedule

MORE_NOISE = "draw t above 0 (low of the timesteps)"
MORE_SIGNAL = "draw t below 1 (high of the timesteps)"


def require_noise(t: Tensor, schedule: Schedule, what: str, remedy: str) -> None:
    """Refuse what has no value where sigma vanishes.

    Args:
        t: (B,).
        schedule: whose sigma counts.
        what: the quantity, for the message.
        remedy: what to do, for the message.

    Raises:
        ValueError: if sigma vanishes at one of the times.
    """
    _require(t, schedule.sigma(t), "noise", schedule, what, remedy)


def require_signal(t: Tensor, schedule: Schedule, what: str, remedy: str) -> None:
    """Refuse what has no value where alpha vanishes; arguments are those of `require_noise`.

    Raises:
        ValueError: if alpha vanishes at one of the times.
    """
    _require(t, schedule.alpha(t), "signal", schedule, what, remedy)


def _require(t: Tensor, value: Tensor, part: str, schedule: Schedule, what: str, remedy: str) -> None:
    if t.device.type == "cpu" and bool((value < VANISHING).any()):
        at = t[value < VANISHING][0].item()
        raise ValueError(f"{what} has no value at t = {at:g}, where {type(schedule).__name__} has no {part}: {remedy}")
