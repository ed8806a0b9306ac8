"""Writes what a command leaves in its run folder: predictions, and the versions, device and command that made them."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from scoredistill.files import write_atomically
from scoredistill.rendering.turntable import picture_grid, save_picture, to_bytes
from scoredistill.version import __version__


def write_predictions(batches: Sequence[Mapping[str, Tensor]], folder: Path, separate: bool = False) -> list[Path]:
    """Write samples.safetensors with x, particle and view, and for pictures samples.png.

    Args:
        batches: the results of the module's predict_step.
        folder: an empty folder.
        separate: write each picture as pictures/000000.png, ... instead of one grid.

    Returns:
        The files written.
    """
    samples = {name: torch.cat([batch[name] for batch in batches]).cpu().contiguous() for name in batches[0]}
    content = safetensors.torch.save(samples)
    written = [folder / "samples.safetensors"]
    write_atomically(written[0], lambda file: file.write(content))
    x = samples["x"]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return written
    if separate:
        written.append(folder / "pictures")
        for number, each in enumerate(x):
            save_picture(to_bytes(each.expand(3, -1, -1)), folder / "pictures" / f"{number:06d}.png")
    else:
        written.append(folder / "samples.png")
        save_picture(picture_grid(x, _columns(len(x), samples.get("particle"))), written[1])
    return written


def _columns(rows: int, particle: Tensor | None) -> int:
    """The number of columns: one row per particle if there are several views, otherwise about a square."""
    particles = rows if particle is None else len(particle.unique())
    return rows // particles if particles < rows else max(1, round(rows**0.5))


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
