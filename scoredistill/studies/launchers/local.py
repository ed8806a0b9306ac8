"""Processes on this machine: started afresh, or forked from one that has imported the package."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import BinaryIO, NoReturn

from scoredistill import start_up
from scoredistill.processes import BOUND
from scoredistill.ranges import require
from scoredistill.studies.launchers.launcher import Job, Launched, Launcher


class Fork:
    """A process in a new session that starts with all modules imported.

    Args:
        job: the run.
        threads: number of threads of torch.

    Raises:
        OSError: if its log cannot be written.
    """

    def __init__(self, job: Job, threads: int) -> None:
        with job.log() as log:
            reading, writing = os.pipe()  # never written to; the process detects by its end that this one has ended
            self.pid = os.fork()
            if self.pid == 0:
                os.close(writing)
                _become(job, threads, reading, log)
        os.close(reading)
        self.stdin: BinaryIO = os.fdopen(writing, "wb")
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs; -n if signal n ended it."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(job: Job, threads: int, stdin: int, log: int) -> NoReturn:
    """Turn the forked process into the process of the run, until it exits."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for source, target in ((stdin, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        # New stream objects: the parent's may hold unwritten output or draw its table.
        sys.stdout, sys.stderr = (
            start_up.robust_stream(stream, os.fdopen(stream, "w", 1, encoding="utf-8", closefd=False))
            for stream in (1, 2)
        )
        os.chdir(job.directory)
        os.environ.update({BOUND: "1", **job.environment})
        gc.freeze()  # the garbage collector would write into memory pages shared with the other processes
        _limit(threads)
        code = job.entry(job.arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)  # without the exit handlers of the parent process


def _limit(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)  # OMP_NUM_THREADS was read when torch was imported


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
