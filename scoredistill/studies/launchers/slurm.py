"""Runs as jobs of Slurm, by submitit."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scoredistill.ranges import require
from scoredistill.studies.launchers.launcher import Job, Launched, Launcher


class Slurm(Launcher):
    """Jobs of Slurm, each of which runs a process. All machines have to see the study's folder under the same path.

    Args:
        partition: of the cluster; null: its default.
        minutes: that a run may take, >= 1.
        cpus: of a run, >= 1.
        gpus: of a run, >= 0.
        memory: of a run in GB, >= 1; null: the cluster's default.
        jobs: how many are in the queue at most, >= 1.
        parameters: further ones, by their names in sbatch: `{account: ..., constraint: ...}`.
        cluster: slurm, or local for submitit's processes on this machine.
        folder: for submitit's own files.

    Raises:
        ImportError: if submitit is not installed.
    """

    def __init__(
        self,
        partition: str | None = None,
        minutes: int = 60,
        cpus: int = 1,
        gpus: int = 0,
        memory: int | None = None,
        jobs: int = 100,
        parameters: Mapping[str, str | int] | None = None,
        cluster: str = "slurm",
        folder: str = ".submitit",
    ) -> None:
        require(">= 1", minutes=minutes, cpus=cpus, memory=memory, jobs=jobs)
        require(">= 0", gpus=gpus)
        try:
            import submitit
        except ImportError as error:
            raise ImportError("submitit is not installed: install scoredistill[slurm]") from error
        self.slots, self._refused = jobs, submitit.core.utils.FailedJobError
        self._executor: Any = submitit.AutoExecutor(folder=Path(folder), cluster=cluster)
        given: dict[str, Any] = {"timeout_min": minutes, "cpus_per_task": cpus, "gpus_per_node": gpus, "mem_gb": memory}
        given |= {"slurm_partition": partition, "slurm_additional_parameters": dict(parameters or {}) or None}
        self._executor.update_parameters(**{key: value for key, value in given.items() if value is not None})
        self._environment = {"OMP_NUM_THREADS": str(cpus)}

    def launch(self, job: Job, slot: int) -> Launched:
        bound = replace(job, environment={**self._environment, **job.environment})
        try:
            return _Submitted(self._executor.submit(bound.run))
        except self._refused as error:  # by sbatch: too many jobs, or an account that it does not know
            raise RuntimeError(" ".join(str(error).split())[-500:]) from error


class _Submitted(Launched):
    def __init__(self, job: Any) -> None:
        self.job, self.stopped = job, False

    def code(self) -> int | None:
        if self.stopped:  # Slurm may take a minute to say so
            return -signal.SIGTERM
        if not self.job.done():
            return None
        error = self.job.exception()
        if error is not None:
            raise RuntimeError(" ".join(str(error).split())[-500:])
        return int(self.job.result())

    def stop(self) -> None:
        self.job.cancel()
        self.stopped = True
