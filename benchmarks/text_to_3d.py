"""NeRFs from text with a small Stable Diffusion: compares SDS and VSD for one prompt at guidance 7.5 and 100.

    uv run python benchmarks/text_to_3d.py --jobs 2           # 2 objectives x 2 scales x 3 seeds
    uv run python benchmarks/text_to_3d.py --seeds 1          # a quick look
    uv run python benchmarks/text_to_3d.py -- --data.prompt "a rocket"

Each run is an ordinary `scoredistill fit` of recipes/prolificdreamer/nerf.yaml with its overlay in recipes/small, in a
separate process and folder: four particles, the same initialization for both objectives. SDS differs only in
`--model.loss SDS`. Existing runs are not repeated, and arguments after `--` go to all runs. The teacher is trained
first if there is none. The output is the means and standard errors of `PromptFidelity`'s metrics over seeds, and of the
differences VSD - SDS per seed, as JSON and as a Markdown table; and a picture with one row per seed, which shows the
four particles of each cell.
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
"""Metrics of the particles; all but the first also exist with the suffix `_gallery`."""

Job = tuple[str, float, int]
"""Objective, guidance scale, seed."""


def finished(output: Path) -> Path | None:
    """The newest finished run under a folder."""
    return next((path.parent for path in sorted(output.glob("*/metrics.json"), reverse=True)), None)


def run(job: Job, folder: Path, overrides: list[str]) -> Path:
    """The finished run of one job, executed now if it is missing.

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
    """The mean, and its standard error if there are several values."""
    return {"mean": mean(values), "standard_error": stdev(values) / len(values) ** 0.5 if len(values) > 1 else None}


def cell(runs: list[Path]) -> dict[str, object]:
    """Metrics of several seeds, with those of the Gallery and the classifier. Empty particles have no chroma."""
    read = [metrics(path) for path in runs]
    names = [*FIGURES, "seconds", *(f"{name}_gallery" for name in FIGURES[1:])]
    names += ["recognizer_accuracy", "recognizer_accuracy_corrupted"]
    found = {name: [m[name] for m in read if name in m] for name in names}
    return {"seeds": len(read)} | {name: mean_and_error(values) for name, values in found.items() if values}


def difference(first: list[Path], second: list[Path]) -> dict[str, object]:
    """First minus second, per seed, for the metrics of both."""
    pairs = [(metrics(a), metrics(b)) for a, b in zip(first, second, strict=True)]
    found = {name: [a[name] - b[name] for a, b in pairs if name in a and name in b] for name in FIGURES}
    return {"seeds": len(pairs)} | {name: mean_and_error(values) for name, values in found.items() if values}


def table(report: dict[str, dict[str, object]]) -> str:
    """The metrics as Markdown, one row per objective and scale, the Gallery last."""

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
    """text_to_3d.png: one row of runs per seed, with all particles of each run from one camera."""
    tiles = [tile for runs in rows for path in runs for tile in first_view(path)]
    save_picture(picture_grid(torch.stack(tiles), columns=len(tiles) // len(rows)), folder / "text_to_3d.png")


def main(argv: list[str] | None = None) -> None:
    """Run the missing runs, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/text_to_3d"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("overrides", nargs="*", help="options of every fit, after --")
    options = parser.parse_args(argv)
    jobs = list(product(LOSSES, SCALES, range(options.seeds)))
    # The first run alone, because it trains the teacher and the classifier if these are missing.
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
