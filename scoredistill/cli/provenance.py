"""Versions, device and command of a run."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from scoredistill.version import __version__

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "jsonargparse", "diffusers", "transformers", "peft", "numpy")


def provenance(command: list[str], device: torch.device) -> dict[str, object]:
    """Versions, device, commit and command line.

    Args:
        command: the arguments after `scoredistill`.
        device: of the run.
    """
    return {
        "scoredistill": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "command": ["scoredistill", *command],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, with `+` if tracked files have changes; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def git_output(*words: str) -> str:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        commit = git_output("rev-parse", "HEAD")
        changed = commit and git_output("status", "--porcelain", "--untracked-files=no")
        return f"{commit}+" if changed else commit or None
    except (OSError, subprocess.SubprocessError):
        return None
