"""256 points with a mixture of two Gaussians as the teacher: SDS collapses, VSD keeps spread and weights.

    uv run python benchmarks/points.py

Each column is an ordinary `scoredistill fit` of a recipe in recipes/points; existing runs are not repeated.
Prints the metrics as JSON, and writes them next to the picture of all columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from recipe_runs import finished_run, metrics, picture, write_report

from scoredistill.rendering.turntable import picture_grid, save_picture

RECIPES = ("sds", "vsd", "vsd_network", "jensen_shannon")


def main() -> None:
    """Run the missing runs, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/points"))
    folder: Path = parser.parse_args().folder
    runs = {name: finished_run(f"points/{name}.yaml", folder / name) for name in RECIPES}
    tiles = torch.stack([picture(run / "grid.png") for run in runs.values()])
    save_picture(picture_grid(tiles, columns=len(tiles)), folder / "points.png")
    write_report({name: metrics(run) for name, run in runs.items()}, folder / "points.json")
    print(f"columns: {', '.join(runs)}: {folder}/points.png")


if __name__ == "__main__":
    main()
