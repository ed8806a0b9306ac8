"""A run as a fork of this process, with the little of `subprocess.Popen` that launchers ask of it."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import BinaryIO, NoReturn

from scoredistill import start_up
from scoredistill.processes import BOUND
from scoredistill.studies.launchers.launcher import MODULE, Job


class Fork:
    """A process that starts with everything imported, in a session of its own.

    Args:
        job: the run.
        threads: of torch.

    Raises:
        OSError: if its log cannot be written.
    """

    def __init__(self, job: Job, threads: int) -> None:
        with job.log() as log:
            reading, writing = os.pipe()  # never written to: its end tells the process that this one has ended
            self.pid = os.fork()
            if self.pid == 0:
                os.close(writing)
                _become(job, threads, reading, log)
        os.close(reading)
        self.stdin: BinaryIO = os.fdopen(writing, "wb")
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs, -n if signal n has ended it."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(job: Job, threads: int, stdin: int, log: int) -> NoReturn:
    """Be the process of a run, from here to its end."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for source, target in ((stdin, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        # Not this process's own: they may hold what it has not written yet, or draw its table.
        sys.stdout, sys.stderr = (
            start_up.lasting(stream, os.fdopen(stream, "w", 1, encoding="utf-8", closefd=False)) for stream in (1, 2)
        )
        os.chdir(job.directory)
        os.environ.update({BOUND: "1", **job.environment})
        gc.freeze()  # what is shared with the other processes stays so: the collector would write into it
        _limit(threads)
        code = importlib.import_module(MODULE).main([str(job.folder), job.key, *job.words])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)  # not by way of what this process was forked from


def _limit(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)  # the environment was read when torch was imported
