"""Launchers of a study's runs: local processes, Ray, Slurm."""

from scoredistill.studies.launchers.launcher import Entry, Job, Launched, Launcher
from scoredistill.studies.launchers.local import LocalProcesses
from scoredistill.studies.launchers.ray import Ray
from scoredistill.studies.launchers.slurm import Slurm

__all__ = ["Entry", "Job", "Launched", "Launcher", "LocalProcesses", "Ray", "Slurm"]
