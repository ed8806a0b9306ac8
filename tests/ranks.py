"""Several processes of one run on this machine, as torchrun starts them, but forked: they have everything imported."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

LIMIT = 120
"""Seconds after which a process that hangs is ended."""


def torchrun(processes: int, call: Callable[[int], int | None], folder: Path) -> list[int]:
    """Call a function on every rank, in a process of its own whose output goes into rank_N.txt.

    Args:
        processes: how many.
        call: from the rank to an exit code, None being 0.
        folder: for what they print.

    Returns:
        the exit codes.
    """
    port = free_port()
    children = [_fork(rank, processes, port, call, folder) for rank in range(processes)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _fork(rank: int, processes: int, port: int, call: Callable[[int], int | None], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        import signal

        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT)
        log = os.open(folder / f"rank_{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
        known = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes}
        known |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in known.items()}, TORCHELASTIC_RUN_ID="test")
        torch.set_num_threads(1)

        code = call(rank) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
