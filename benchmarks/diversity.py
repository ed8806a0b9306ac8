"""The diversity claim of the VSD paper in 3D: how many of a prompt's four variants do four particles cover?

    uv run python benchmarks/diversity.py                 # 8 seeds of VSD and of SDS, one noise schedule for both
    uv run python benchmarks/diversity.py --seeds 2       # a quick look

Each run is an ordinary `scoredistill fit` of recipes/gallery/diversity.yaml in its own folder; existing runs are not
repeated. Prints the metrics as JSON, and writes them next to the picture of all particles.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch
from recipe_runs import finished_run, first_view, metrics, write_report

from scoredistill.rendering.turntable import picture_grid, save_picture

LOSSES: dict[str, list[str]] = {"VSD": [], "SDS": ["--model.loss", "SDS"]}


def run(loss: str, seed: int, folder: Path) -> Path:
    """The finished run of one loss and seed."""
    seeds = ["--seed_everything", str(seed), "--model.generator.init_args.seed", str(seed)]
    return finished_run("gallery/diversity.yaml", folder / loss / f"seed_{seed}", *LOSSES[loss], *seeds)


def summary(runs: list[Path]) -> dict[str, object]:
    """Variants covered and PSNR of several runs, with the standard error over seeds."""
    found = [metrics(path) for path in runs]
    covered = [m["variants_covered"] for m in found]
    error = stdev(covered) / len(covered) ** 0.5 if len(covered) > 1 else None
    return {
        "variants_covered": covered,
        "mean": mean(covered),
        "standard_error": error,
        "psnr": mean(m["psnr/mean"] for m in found),
        "seconds": mean(m["seconds"] for m in found),
    }


def main() -> None:
    """Run the missing runs, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/diversity"))
    options = parser.parse_args()
    runs = {loss: [run(loss, seed, options.folder) for seed in range(options.seeds)] for loss in LOSSES}
    tiles = [tile for seed in range(options.seeds) for loss in LOSSES for tile in first_view(runs[loss][seed])]
    save_picture(picture_grid(torch.stack(tiles), columns=4 * len(LOSSES)), options.folder / "diversity.png")
    write_report({loss: summary(paths) for loss, paths in runs.items()}, options.folder / "diversity.json")
    print(f"a row a seed: four particles of {', then four of '.join(LOSSES)}: {options.folder}/diversity.png")


if __name__ == "__main__":
    main()
