"""Coordinates the processes of one run, if torchrun or srun starts all of them with the same command."""

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
"""Environment variable with the folder of rank 0, for all other processes."""
PATIENCE = timedelta(days=2)
"""Timeout for rank 0, which may train a teacher before it creates the folder."""
FAILED = ""


def is_rank_zero() -> bool:
    """Whether this process has rank 0, or is the only one of its run. It prints the messages of the run."""
    environment = _environment()
    return SHARED not in os.environ and (environment is None or environment.global_rank() == 0)


@contextmanager
def shared_run_folder() -> Iterator[list[Path]]:
    """Inside the block rank 0 creates a folder and appends it to the list; the others receive the folder before it.

    Raises:
        UsageError: on the others, if rank 0 could not create it; its message is printed above.
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
            raise UsageError("rank 0 has stopped, see its message")
        os.environ[SHARED] = folder
        yield []
        return
    opened: list[Path] = []
    try:
        yield opened
    finally:
        store.set("folder", str(opened[0].absolute()) if opened else FAILED)


def env_without_launcher() -> dict[str, str]:
    """The environment for a process outside this run, without the variables of the run's launcher."""
    launchers = ("TORCHELASTIC_", "SLURM_", "MASTER_", "ROLE_", "GROUP_", "LOCAL_", "RANK", "WORLD_SIZE")
    return {name: value for name, value in os.environ.items() if not name.startswith(launchers)}


@contextmanager
def run_folder_env(folder: Path) -> Iterator[None]:
    """Inside the block, the processes that Lightning starts for further devices write into the same folder.

    Args:
        folder: of rank 0.
    """
    before = os.environ.get(SHARED)
    os.environ[SHARED] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(SHARED) if before is None else os.environ.update({SHARED: before})


def _environment() -> ClusterEnvironment | None:
    """The environment of several processes that a launcher started, or None."""
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            environment: ClusterEnvironment = kind()
            return environment if environment.world_size() > 1 else None
    return None


@cache  # for the lifetime of the process: Lightning's processes use the same port, and rank 0 serves it
def _store(environment: ClusterEnvironment) -> Store:
    os.environ.update({"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)})
    rank, processes = environment.global_rank(), environment.world_size()
    store, _, _ = next(rendezvous("env://", rank, processes, timeout=PATIENCE))
    return PrefixStore("scoredistill", store)
