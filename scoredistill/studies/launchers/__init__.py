"""Where a study's runs are run: local processes, Ray, Slurm."""

from scoredistill.studies.launchers.launcher import Job, Launched, Launcher
from scoredistill.studies.launchers.local import LocalProcesses
from scoredistill.studies.launchers.ray import Ray
from scoredistill.studies.launchers.slurm import Slurm

__all__ = ["Job", "Launched", "Launcher", "LocalProcesses", "Ray", "Slurm"]
