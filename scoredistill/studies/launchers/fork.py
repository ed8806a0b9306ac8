"""A run as a fork of this process, with the part of the `subprocess.Popen` interface that launchers use."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import BinaryIO, NoReturn

from scoredistill import start_up
from scoredistill.processes import BOUND
from scoredistill.studies.launchers.launcher import Job


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
