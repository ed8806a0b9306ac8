"""Runs as Ray tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scoredistill.ranges import require
from scoredistill.studies.launchers.launcher import Job, Launched, Launcher


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
