"""The diversity claim of the VSD paper in 3D: how many of a prompt's four variants do four particles cover?

    uv run python benchmarks/diversity.py                 # 8 seeds of VSD and of SDS, one noise schedule for both
    uv run python benchmarks/diversity.py --seeds 2       # a quick look

Each run is an ordinary `scoredistill fit` of recipes/gallery/diversity.yaml in a folder of its own; runs that are there
already are not done again. It prints the figures as JSON and writes them beside the picture of all particles.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import torch
from PIL import Image

from scoredistill.cli import main as scoredistill
from scoredistill.rendering.turntable import picture_grid, save_picture

LOSSES = {"VSD": [], "SDS": ["--model.loss", "SDS"]}


def run(loss: str, seed: int, folder: Path) -> Path:
    """The finished run of one loss and seed, made now unless it is there."""
    output = folder / loss / f"seed_{seed}"
    finished = sorted(output.glob("*/metrics.json"))
    if finished:
        return finished[-1].parent
    seeds = ["--seed_everything", str(seed), "--model.generator.init_args.seed", str(seed)]
    code = scoredistill(["fit", "--config", "gallery/diversity.yaml", *LOSSES[loss], *seeds, "--output", str(output)])
    if code:
        raise SystemExit(code)
    return sorted(output.glob("*/metrics.json"))[-1].parent


def figures(runs: list[Path]) -> dict[str, float | list[float]]:
    """Variants covered and PSNR of several runs."""
    metrics = [json.loads((path / "metrics.json").read_text()) for path in runs]
    covered, psnr = [m["variants_covered"] for m in metrics], [m["psnr/mean"] for m in metrics]
    error = stdev(covered) / len(covered) ** 0.5 if len(covered) > 1 else float("nan")
    return {"variants_covered": covered, "mean": mean(covered), "standard_error": error, "psnr": mean(psnr),
            "seconds": mean(m["seconds"] for m in metrics)}  # fmt: skip


def first_view(path: Path, particles: int = 4, views: int = 6) -> list[torch.Tensor]:
    """Each particle's picture from the first camera of the run's grid.png, (3, H, W) in [-1, 1]."""
    grid = torch.frombuffer(bytearray(Image.open(path / "grid.png").convert("RGB").tobytes()), dtype=torch.uint8)
    width, height = Image.open(path / "grid.png").size
    tile = (width - 2) // views
    pixels = grid.view(height, width, 3).permute(2, 0, 1).float() / 127.5 - 1
    return [pixels[:, 2 + i * tile : (i + 1) * tile, 2:tile] for i in range(particles)]


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("runs/diversity"))
    options = parser.parse_args()
    runs = {loss: [run(loss, seed, options.folder) for seed in range(options.seeds)] for loss in LOSSES}
    rows = [tile for seed in range(options.seeds) for loss in LOSSES for tile in first_view(runs[loss][seed])]
    save_picture(picture_grid(torch.stack(rows), columns=4 * len(LOSSES)), options.folder / "diversity.png")
    result = {loss: figures(paths) for loss, paths in runs.items()}
    text = json.dumps({"torch": torch.__version__, "seeds": options.seeds, **result}, indent=2)
    (options.folder / "diversity.json").write_text(text + "\n")
    print(text)
    print(f"columns: four particles of {', then four of '.join(LOSSES)}; a row a seed: {options.folder}/diversity.png")


if __name__ == "__main__":
    main()
