"""What predict leaves behind: the samples as tensors and, where they are pictures, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from torch import Tensor

from scoredistill.rendering.files import write_atomically
from scoredistill.rendering.turntable import picture_grid, save_picture
from scoredistill.types import Sample


def write_predictions(samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Write samples.safetensors with x, particle and view, and samples.png.

    Args:
        samples: of the evaluated generator.
        folder: an empty folder.

    Returns:
        The files written.
    """
    sample = Sample.cat(samples) if len(samples) > 1 else samples[0]
    tensors = {"x": sample.x, "particle": sample.particle, "view": sample.view}
    present = {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
    content = safetensors.torch.save(present)
    written = [folder / "samples.safetensors"]
    write_atomically(written[0], lambda file: file.write(content))
    if _are_pictures(sample.x):
        written.append(folder / "samples.png")
        save_picture(picture_grid(sample.x, _columns(sample)), written[1])
    return written


def _are_pictures(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[1] in (1, 3)


def _columns(sample: Sample) -> int:
    """A row for each particle where there are several views, else about a square."""
    rows = len(sample.x)
    particles = rows if sample.particle is None else len(sample.particle.unique())
    return rows // particles if particles < rows else max(1, round(rows**0.5))
