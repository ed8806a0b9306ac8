"""NeRFs from text under a small Stable Diffusion: what SDS and VSD make of one prompt at guidance 7.5 and 100.

    uv run python benchmarks/text_to_3d.py --jobs 2           # 2 objectives x 2 scales x 3 seeds
    uv run python benchmarks/text_to_3d.py --seeds 1          # a quick look
    uv run python benchmarks/text_to_3d.py -- --data.prompt "a rocket"

Each run is an ordinary `scoredistill fit` of recipes/prolificdreamer/nerf.yaml with its overlay of recipes/small, in a
process and a folder of its own: four particles, the same starts for both objectives; SDS is `--model.loss SDS` and
differs in nothing else. Runs that are there already are not done again, and what follows `--` goes to all of them. The
teacher is trained first if there is none yet. Of `PromptFidelity`'s metrics it writes means and standard errors over
seeds, and of VSD's less SDS's, seed by seed, as JSON and as a Markdown table, and a picture in which each row is a
seed: each cell's four particles.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from recipe_runs import first_view, metrics, write_report

from scoredistill.rendering.turntable import picture_grid, save_picture

RECIPE = ["--config", "prolificdreamer/nerf", "--config", "small/prolificdreamer/nerf"]
LOSSES: dict[str, list[str]] = {"SDS": ["--model.loss", "SDS"], "VSD": []}
SCALES = [7.5, 100.0]
FIGURES = ["recognized", "chroma", "foreground", "diversity", "diversity_features"]
"""Of the particles; all but the first have a `_gallery` beside them."""

Job = tuple[str, float, int]
"""Objective, guidance scale, seed."""


def finished(output: Path) -> Path | None:
    """The newest finished run under a folder."""
    return next((path.parent for path in sorted(output.glob("*/metrics.json"), reverse=True)), None)


def run(job: Job, folder: Path, overrides: list[str]) -> Path:
    """The finished run of one job, made now unless it is there.

    Raises:
        SystemExit: with the command's exit code, if it fails.
    """
    loss, scale, seed = job
    output = folder / loss / f"{scale:g}" / f"seed_{seed}"
    if finished(output) is None:
        words = [*RECIPE, *LOSSES[loss], "--model.guidance.init_args.scale", str(scale), *overrides]
        words += ["--seed_everything", str(seed), "--model.generator.init_args.seed", str(seed)]
        words += ["--trainer.enable_progress_bar", "false", "--output", str(output)]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        done = subprocess.run([sys.executable, "-m", "scoredistill", "fit", *words], env=environment, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    made = finished(output)
    assert made is not None
    return made


def mean_and_error(values: list[float]) -> dict[str, float | None]:
    """The mean, and its standard error where there are several."""
    return {"mean": mean(values), "standard_error": stdev(values) / len(values) ** 0.5 if len(values) > 1 else None}


def cell(runs: list[Path]) -> dict[str, object]:
    """Metrics of several seeds, with the Gallery's and the classifier's own. Empty particles have no chroma."""
    read = [metrics(path) for path in runs]
    names = [*FIGURES, "seconds", *(f"{name}_gallery" for name in FIGURES[1:])]
    names += ["recognizer_accuracy", "recognizer_accuracy_corrupted"]
    found = {name: [m[name] for m in read if name in m] for name in names}
    return {"seeds": len(read)} | {name: mean_and_error(values) for name, values in found.items() if values}


def difference(first: list[Path], second: list[Path]) -> dict[str, object]:
    """First minus second, seed by seed, of the metrics that both have."""
    pairs = [(metrics(a), metrics(b)) for a, b in zip(first, second, strict=True)]
    found = {name: [a[name] - b[name] for a, b in pairs if name in a and name in b] for name in FIGURES}
    return {"seeds": len(pairs)} | {name: mean_and_error(values) for name, values in found.items() if values}


def table(report: dict[str, dict[str, object]]) -> str:
    """The metrics as Markdown, a row an objective and scale, the Gallery's own last."""

    def shown(cell: dict, name: str) -> str:
        if name not in cell:
            return "-"
        middle, error = cell[name]["mean"], cell[name]["standard_error"]
        digits = 1 if name.startswith("chroma") else 3
        return f"{middle:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")

    rows = [["objective", "guidance", "seeds", *FIGURES], ["---"] * (3 + len(FIGURES))]
    for key, found in report.items():
        rows.append([*key.split(" "), str(found["seeds"]), *(shown(found, name) for name in FIGURES)])
    last = next(reversed(report.values()))
    own = [shown(last, "recognizer_accuracy"), *(shown(last, f"{name}_gallery").split(" ")[0] for name in FIGURES[1:])]
    rows.append(["the Gallery", "", "", own[0].split(" ")[0], *own[1:]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def draw(rows: Sequence[Sequence[Path]], folder: Path) -> None:
    """text_to_3d.png: a row of runs a seed, of each run all particles from one camera."""
    tiles = [tile for runs in rows for path in runs for tile in first_view(path)]
    save_picture(picture_grid(torch.stack(tiles), columns=len(tiles) // len(rows)), folder / "text_to_3d.png")


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/text_to_3d"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("overrides", nargs="*", help="options of every fit, after --")
    options = parser.parse_args(argv)
    jobs = list(product(LOSSES, SCALES, range(options.seeds)))
    # The first by itself: it trains the teacher and the classifier, if these are not there yet.
    first = run(jobs[0], options.folder, options.overrides)
    with ThreadPoolExecutor(options.jobs) as pool:
        others = list(pool.map(lambda job: run(job, options.folder, options.overrides), jobs[1:]))
    paths = dict(zip(jobs, [first, *others], strict=True))
    runs = {key: [paths[*key, seed] for seed in range(options.seeds)] for key in product(LOSSES, SCALES)}
    cells = {f"VSD-SDS {scale:g}": difference(runs["VSD", scale], runs["SDS", scale]) for scale in SCALES}
    cells |= {f"{loss} {scale:g}": cell(runs[loss, scale]) for loss, scale in runs}
    options.results.mkdir(parents=True, exist_ok=True)
    write_report({"seeds": options.seeds, "cells": cells}, options.results / "text_to_3d.json")
    (options.results / "text_to_3d.md").write_text(table(cells), encoding="utf-8")
    draw(list(zip(*runs.values(), strict=True)), options.results)
    print(table(cells))


if __name__ == "__main__":
    main()
