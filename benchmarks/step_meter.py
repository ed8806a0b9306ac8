"""Measures a training step: seconds per stage, on the device's time line, and peak memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

OTHER = "other"
"""The time outside all stages."""

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

_REFERENCES, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Measured:
    """One step.

    Args:
        seconds: per stage.
        peak: peak memory in bytes, of the tensors on a CUDA device or else of the process; None: unknown.
    """

    seconds: dict[str, float]
    peak: int | None

    @property
    def total(self) -> float:
        """Seconds of the complete step."""
        return sum(self.seconds.values())

    def of(self, *stages: str) -> float:
        """Total seconds of some stages."""
        return sum(self.seconds.get(stage, 0.0) for stage in stages)


class Meter:
    """Measures one step at a time. The time of a nested stage counts only for the nested stage.

    On a CUDA device events separate the stages, so that nothing waits for the device within a step.

    Args:
        device: of the step.
        clock: of a CPU: wall, or cpu for the process's CPU time, which other load on the machine hardly changes; use
            cpu with one thread.
    """

    def __init__(self, device: torch.device, clock: Clock = "wall") -> None:
        self.cuda, self._seconds = device.type == "cuda", CLOCKS[clock]
        self._open: list[str] = []
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """Start a step."""
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        elif _REFERENCES.exists():
            _REFERENCES.write_text("5")  # Linux: resets the peak
        self._open, self._marks = [OTHER], []
        self._mark()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """A stage of the step."""
        self._open.append(stage)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    def stop(self) -> Measured:
        """End the step."""
        self._mark()
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (stage, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            took = begin.elapsed_time(end) / 1e3 if isinstance(begin, torch.cuda.Event) else end - begin
            seconds[stage] = seconds.get(stage, 0.0) + took
        return Measured(seconds, self._peak())

    def _mark(self) -> None:
        """Switch to a stage."""
        now: float | torch.cuda.Event = self._seconds()
        if self.cuda:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self._marks.append((self._open[-1], now))

    def _peak(self) -> int | None:
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _REFERENCES.exists() else None
        return None if found is None else 1024 * int(found[1])
