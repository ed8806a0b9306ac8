"""What a run was made with."""

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
        command: the words after `scoredistill`.
        device: that the run is on.
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
    """The checkout's commit, with `+` where tracked files were changed; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def ask(*words: str) -> str:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return f"{commit}+" if commit and ask("status", "--porcelain", "--untracked-files=no") else commit or None
    except (OSError, subprocess.SubprocessError):
        return None
