"""Runs as processes on this machine."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

from scoredistill.ranges import require
from scoredistill.studies.launchers.fork import Fork
from scoredistill.studies.launchers.launcher import Job, Launched, Launcher

GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL, in which a process may save its state."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalProcesses(Launcher):
    """Processes on this machine, side by side.

    On a CPU they are forks of this process, because importing torch and Lightning takes longer than a small run. With
    CUDA, which does not survive a fork, and on macOS, whose frameworks forbid it, each process is started anew.

    Args:
        processes: number of concurrent processes, >= 1; None: one per GPU, or without GPUs one per `threads` cores.
        threads: number of threads per process, >= 1; more threads than free cores slow each other down.

    The visible GPUs (CUDA_VISIBLE_DEVICES) are divided among the processes.
    """

    def __init__(self, processes: int | None = None, threads: int = 1) -> None:
        require(">= 1", processes=processes, threads=threads)
        import torch

        self.devices = _devices(torch.cuda.device_count())
        self.threads = threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = processes or len(self.devices) or max(1, cores // threads)

    def launch(self, job: Job, slot: int) -> Launched:
        environment = {"OMP_NUM_THREADS": str(self.threads), **job.environment}
        if not self.devices and hasattr(os, "fork") and sys.platform != "darwin":
            return _Process(Fork(replace(job, environment=environment), self.threads))
        if self.devices:
            devices = self.devices[slot :: self.slots] or [self.devices[slot % len(self.devices)]]
            environment[VISIBLE] = ",".join(devices)
        return _Process(replace(job, environment=environment).start())


def _devices(count: int) -> list[str]:
    """The GPUs' names in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get(VISIBLE)
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]


class _Process(Launched):
    def __init__(self, process: subprocess.Popen[bytes] | Fork) -> None:
        self.process = process
        self._deadline = math.inf

    def code(self) -> int | None:
        if time.monotonic() > self._deadline:
            self.process.send_signal(signal.SIGKILL)
        code = self.process.poll()
        if code is not None and self.process.stdin is not None:
            self.process.stdin.close()
        return code

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self._deadline = time.monotonic() + GRACE
