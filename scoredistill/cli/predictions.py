"""Writes the results of predict: the samples as tensors, and pictures as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from scoredistill.files import write_atomically
from scoredistill.rendering.turntable import picture_grid, save_picture, to_bytes


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
