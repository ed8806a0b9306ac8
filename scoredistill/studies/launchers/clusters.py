"""Jobs on a Slurm or Ray cluster."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scoredistill.ranges import require
from scoredistill.studies.launchers.launcher import Job, Launched, Launcher


class Slurm(Launcher):
    """Slurm jobs, one process each. All machines must see the study's folder under the same path.

    Args:
        partition: partition of the cluster; None: its default.
        minutes: time limit per run, >= 1.
        cpus: CPUs per run, >= 1.
        gpus: GPUs per run, >= 0.
        memory: memory per run in GB, >= 1; None: the cluster's default.
        jobs: largest number of jobs in the queue, >= 1.
        parameters: further options under their sbatch names: `{account: ..., constraint: ...}`.
        cluster: slurm, or local for processes on this machine, started by submitit.
        folder: folder of submitit's files.

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
            raise ImportError("launcher Slurm needs submitit: install scoredistill[slurm]") from error
        self.slots = jobs
        self._refused = submitit.core.utils.FailedJobError
        self._executor: Any = submitit.AutoExecutor(folder=Path(folder), cluster=cluster)
        settings: dict[str, Any] = {
            "timeout_min": minutes,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            "mem_gb": memory,
            "slurm_partition": partition,
            "slurm_additional_parameters": dict(parameters or {}) or None,
        }
        self._executor.update_parameters(**{key: value for key, value in settings.items() if value is not None})
        self._environment = {"OMP_NUM_THREADS": str(cpus)}

    def launch(self, job: Job, slot: int) -> Launched:
        bound = replace(job, environment={**self._environment, **job.environment})
        try:
            return _Submitted(self._executor.submit(bound.run))
        except self._refused as error:  # sbatch rejects the job: too many jobs, or an unknown account
            raise RuntimeError(" ".join(str(error).split())[-500:]) from error


class _Submitted(Launched):
    def __init__(self, job: Any) -> None:
        self.job = job
        self.stopped = False

    def code(self) -> int | None:
        if self.stopped:  # Slurm may report it a minute later
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


class Ray(Launcher):
    """Ray tasks, one process each. All machines must see the study's folder under the same path.

    Args:
        address: address of a cluster, `auto` for this machine's; None: a local cluster, which ends with the study.
        cpus: CPUs per run, > 0, also its number of threads.
        gpus: GPUs per run, >= 0; fractions are allowed.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if `cpus` or `gpus` is too small.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0) -> None:
        require("> 0", cpus=cpus)
        require(">= 0", gpus=gpus)
        try:
            import ray
        except ImportError as error:
            raise ImportError("launcher Ray needs Ray: install scoredistill[ray]") from error
        self._ray: Any = ray
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1) // cpus))
        self._run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(Job.run)
        self._environment = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}

    def launch(self, job: Job, slot: int) -> Launched:
        bound = replace(job, environment={**self._environment, **job.environment})
        return _Task(self._ray, self._run.remote(bound))

    def close(self) -> None:
        self._ray.shutdown()


class _Task(Launched):
    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray = ray
        self.reference = reference

    def code(self) -> int | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(self.reference))
        except self.ray.exceptions.RayError as error:
            raise RuntimeError(" ".join(str(error).split())) from error

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=True)  # the run's process ends with the worker
