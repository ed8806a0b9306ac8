"""Processes forked from the test process, in which the imports are already done."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

LIMIT = 200
"""Seconds after which a hanging process is killed."""


class Forked:
    """A call in a separate process, with the methods of `subprocess.Popen` that tests need.

    Args:
        call: what it does; its exit code, None being 0.
        log: file for what it prints.
        environment: beside the test's own.
        dtype: torch's default in it; None: the test's own.
    """

    def __init__(
        self,
        call: Callable[[], int | None],
        log: Path,
        environment: Mapping[str, str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.log, self.returncode = log, None
        self.pid = os.fork()
        if self.pid == 0:
            _become(call, log, environment or {}, dtype)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        return self.log.read_text()


def _become(
    call: Callable[[], int | None], log: Path, environment: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    code = 70
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
        os.environ.update(environment)
        torch.set_num_threads(1)
        torch.set_default_dtype(dtype or torch.get_default_dtype())
        code = call() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def torchrun(processes: int, call: Callable[[int], int | None], folder: Path) -> list[int]:
    """Call a function on every rank, as torchrun does; their output goes to rank_N.txt.

    Args:
        processes: how many.
        call: from the rank to an exit code.
        folder: for what they print.

    Returns:
        the exit codes.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0, "MASTER_PORT": port}
    shared |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
    ranks = []
    for rank in range(processes):
        known = {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        ranks.append(Forked(lambda rank=rank: call(rank), folder / f"rank_{rank}.txt", known))
    return [rank.wait() for rank in ranks]
