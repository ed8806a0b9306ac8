"""Runs of recipes for benchmarks, which are executed once and then evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scoredistill.cli import main as scoredistill


def finished_run(recipe: str, output: Path, *overrides: str) -> Path:
    """The folder of a finished `scoredistill fit` of a recipe under `output`, executed now if it is missing.

    Raises:
        SystemExit: with the command's exit code, if it fails.
    """
    if not any(output.glob("*/metrics.json")):
        code = scoredistill(["fit", "--config", recipe, *overrides, "--output", str(output)])
        if code:
            raise SystemExit(code)
    return sorted(output.glob("*/metrics.json"))[-1].parent


def metrics(run: Path) -> dict[str, float]:
    """The run's final metrics."""
    return json.loads((run / "metrics.json").read_text())


def picture(path: Path) -> torch.Tensor:
    """A picture's pixels, (3, H, W) in [-1, 1]."""
    image = Image.open(path).convert("RGB")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def first_view(path: Path, particles: int = 4, views: int = 6) -> list[torch.Tensor]:
    """Each particle's picture from the first camera of the run's grid.png, (3, H, W) in [-1, 1]."""
    pixels = picture(path / "grid.png")
    tile = (pixels.shape[2] - 2) // views
    return [pixels[:, 2 + i * tile : (i + 1) * tile, 2:tile] for i in range(particles)]


def write_report(report: dict[str, Any], path: Path) -> None:
    """Print a report as JSON, with torch's version, and store it."""
    text = json.dumps({"torch": torch.__version__, **report}, indent=2)
    path.write_text(text + "\n")
    print(text)
