"""Launchers of a study's runs: local processes, Ray, Slurm."""

from scoredistill.studies.launchers.clusters import Ray, Slurm
from scoredistill.studies.launchers.launcher import Entry, Job, Launched, Launcher
from scoredistill.studies.launchers.local import LocalProcesses

__all__ = ["Entry", "Job", "Launched", "Launcher", "LocalProcesses", "Ray", "Slurm"]
