"""What the processes of one run agree on, where torchrun or srun start all of them by the same command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from scoredistill.cli.errors import UsageError

SHARED = "SCOREDISTILL_RUN_FOLDER"
"""Environment variable that tells a process the folder of the first one, where it is not the first itself."""
PATIENCE = timedelta(days=2)
"""For the first process, which may have to train a teacher before it opens the folder."""
FAILED = ""


def is_first() -> bool:
    """Whether this process is the first of its run, or the only one; it speaks for all of them."""
    environment = _environment()
    return SHARED not in os.environ and (environment is None or environment.global_rank() == 0)


@contextmanager
def one_folder() -> Iterator[list[Path]]:
    """Inside the block the first process opens a folder and puts it into the list; the others learn it beforehand.

    Raises:
        UsageError: on the others, if the first one could not open it; its own message stands above.
    """
    environment = None if SHARED in os.environ else _environment()
    if environment is None:
        yield []
        return
    store = _store(environment)
    if environment.global_rank() != 0:
        store.wait(["folder"], PATIENCE)
        folder = store.get("folder").decode()
        if folder == FAILED:
            raise UsageError("the first process has stopped, see its message")
        os.environ[SHARED] = folder
        yield []
        return
    opened: list[Path] = []
    try:
        yield opened
    finally:
        store.set("folder", str(opened[0].absolute()) if opened else FAILED)


def alone() -> dict[str, str]:
    """The environment of a process that is not one of this run's, whatever launcher has started those."""
    launchers = ("TORCHELASTIC_", "SLURM_", "MASTER_", "ROLE_", "GROUP_", "LOCAL_", "RANK", "WORLD_SIZE")
    return {name: value for name, value in os.environ.items() if not name.startswith(launchers)}


@contextmanager
def run_folder_env(folder: Path) -> Iterator[None]:
    """Inside the block, processes that Lightning starts for further devices write into the same folder.

    Args:
        folder: of the first process.
    """
    before = os.environ.get(SHARED)
    os.environ[SHARED] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(SHARED) if before is None else os.environ.update({SHARED: before})


def _environment() -> ClusterEnvironment | None:
    """The environment of several processes that were started from outside, or None."""
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            found: ClusterEnvironment = environment()
            return found if found.world_size() > 1 else None
    return None


@cache  # for as long as the process lives: Lightning's processes meet at the same port, and the first one serves it
def _store(environment: ClusterEnvironment) -> Store:
    os.environ.update({"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)})
    rank, processes = environment.global_rank(), environment.world_size()
    store, _, _ = next(rendezvous("env://", rank, processes, timeout=PATIENCE))
    return PrefixStore("scoredistill", store)
