"""Runs as processes of this machine."""

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
"""Seconds in which a process that was told to end may write what it has to."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalProcesses(Launcher):
    """Processes on this machine, side by side.

    On a CPU they are forks of this process, for to import torch and Lightning takes longer than a small run. CUDA does
    not survive a fork, and a Mac's frameworks forbid it: there each is started anew.

    Args:
        processes: how many at a time, >= 1; null: one for each GPU, or where there is none for each `threads` cores.
        threads: of each process, >= 1: threads that wait for a busy core cost more than they bring.

    The GPUs are shared out among the processes; CUDA_VISIBLE_DEVICES says which there are.
    """

    def __init__(self, processes: int | None = None, threads: int = 1) -> None:
        require(">= 1", processes=processes, threads=threads)
        import torch

        self.devices, self.threads = _devices(torch.cuda.device_count()), threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = processes or len(self.devices) or max(1, cores // threads)

    def launch(self, job: Job, slot: int) -> Launched:
        environment = {"OMP_NUM_THREADS": str(self.threads), **job.environment}
        if not self.devices and hasattr(os, "fork") and sys.platform != "darwin":
            return _Process(Fork(replace(job, environment=environment), self.threads))
        if self.devices:
            mine = self.devices[slot :: self.slots] or [self.devices[slot % len(self.devices)]]
            environment[VISIBLE] = ",".join(mine)
        return _Process(replace(job, environment=environment).start())


def _devices(count: int) -> list[str]:
    """What each GPU is called."""
    named = os.environ.get(VISIBLE)
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]


class _Process(Launched):
    def __init__(self, process: subprocess.Popen[bytes] | Fork) -> None:
        self.process, self._late = process, math.inf

    def code(self) -> int | None:
        if time.monotonic() > self._late:
            self.process.send_signal(signal.SIGKILL)
        code = self.process.poll()
        if code is not None and self.process.stdin is not None:
            self.process.stdin.close()
        return code

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self._late = time.monotonic() + GRACE
