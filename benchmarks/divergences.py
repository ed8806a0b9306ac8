"""Compares all divergences, with the exact and a learned ratio: modes reached, distance to the teacher, variance of h.

    uv run python benchmarks/divergences.py                         # 9 divergences x 2 ratios x 5 seeds, and the ring
    uv run python benchmarks/divergences.py --seeds 1 --steps 300   # a quick look

Each run is an ordinary `scoredistill fit` of recipes/f_distill/grid.yaml or grid_learned.yaml in its own folder.
Existing runs are not repeated, so several processes can share the work with `--divergences`. The table also has the
variance of h of THEORY's law 10 for a Gaussian pair at mean gap 1, by quadrature. The divergences of RING are also run
on the eight modes of recipes/f_distill/ring.yaml, which have different weights. Prints the metrics as JSON, stores
them, and writes a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean, median, stdev

import torch
from numpy.polynomial.hermite_e import hermegauss
from recipe_runs import finished_run, metrics, write_report

from scoredistill.divergences import (
    Alpha,
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
)

DIVERGENCES: dict[str, Divergence] = {
    "ReverseKL": ReverseKL(),
    "SoftenedReverseKL": SoftenedReverseKL(),
    "JensenShannon": JensenShannon(),
    "SquaredHellinger": SquaredHellinger(),
    "Jeffreys": Jeffreys(),
    "ForwardKL": ForwardKL(),
    "Pearson": Pearson(),
    "Neyman": Neyman(),
    "Alpha": Alpha(0.5),
}
RATIOS = {"exact": "f_distill/grid.yaml", "learned": "f_distill/grid_learned.yaml"}
RING = ["ReverseKL", "JensenShannon", "ForwardKL"]


def runs(name: str, kind: str, recipe: str, options: argparse.Namespace) -> list[Path]:
    """The finished runs of one divergence, one per seed."""
    words = ["--model.loss.init_args.divergence", name]
    words += ["--model.loss.init_args.divergence.alpha", "0.5"] if name == "Alpha" else []
    words += ["--trainer.max_steps", str(options.steps), "--trainer.enable_progress_bar", "false"]
    folder = options.folder / f"{options.steps}_steps" / name / kind
    seeds = range(options.seeds)
    return [finished_run(recipe, folder / f"seed_{s}", *words, "--seed_everything", str(s)) for s in seeds]


def variance_of_h(path: Path) -> float:
    """Var(h) / E(h)^2 = 1 / (effective sample size) - 1, the mean over the last half of training."""
    with next(path.glob("logs/*/metrics.csv")).open() as file:
        sizes = [float(row["objective/h/effective_sample_size"]) for row in csv.DictReader(file) if row["loss"]]
    return mean(1 / size - 1 for size in sizes[len(sizes) // 2 :])


def variance_at_gap_one(divergence: Divergence, nodes: int = 120) -> float:
    """Var_q(h) / E_q(h)^2 for p = N(0, 1) and q = N(1, 1), by Gauss-Hermite quadrature: exact to about 1e-9."""
    z, weight = (torch.from_numpy(each) for each in hermegauss(nodes))
    h = divergence.h_from_log(-0.5 - z)
    mean_h, mean_square = ((weight * value).sum() / weight.sum() for value in (h, h * h))
    return float(mean_square / mean_h**2 - 1)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean, and its standard error, 0 for a single value."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def cell(found: list[Path]) -> dict[str, object]:
    """Metrics of several seeds: lists with one value per seed, or means with standard errors."""
    read = [metrics(path) for path in found]
    covered = [m["modes_covered"] for m in read]
    averaged = {key: mean_and_error([m[key] for m in read]) for key in ("wasserstein2", "mode_kl", "seconds")}
    variances = mean_and_error([variance_of_h(path) for path in found])
    return {
        "modes_covered": covered,
        "modes_median": median(covered),
        "within_3_std": [m["within_3_std"] for m in read],
        **averaged,
        "variance_of_h": variances,
    }


def table(report: dict[str, dict[str, dict]]) -> str:
    """The grid's metrics as Markdown."""
    heads = ["divergence", "ratio", "seeds", "modes (least)", "within 3 std", "Wasserstein-2", "histogram's divergence"]
    rows = [[*heads, "Var h / (E h)²", "law 10"], ["---"] * 9]
    for name, cells in report.items():
        for ratio in RATIOS:
            found = cells[ratio]
            modes = f"{found['modes_median']:g} ({min(found['modes_covered']):g})"
            row = [name, ratio, str(len(found["modes_covered"])), modes, f"{mean(found['within_3_std']):.3f}"]
            row += ["{:.2f} ± {:.2f}".format(*found["wasserstein2"]), "{:.4f} ± {:.4f}".format(*found["mode_kl"])]
            row += ["{:.3f} ± {:.3f}".format(*found["variance_of_h"]), f"{cells['law_10']['variance_at_gap_one']:.3f}"]
            rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Run the missing runs, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--divergences", nargs="+", default=list(DIVERGENCES), choices=list(DIVERGENCES))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/divergences"))
    options = parser.parse_args()
    grid: dict[str, dict[str, dict]] = {}
    for name in options.divergences:
        grid[name] = {"law_10": {"variance_at_gap_one": variance_at_gap_one(DIVERGENCES[name])}}
        grid[name] |= {ratio: cell(runs(name, ratio, recipe, options)) for ratio, recipe in RATIOS.items()}
    asked = [name for name in RING if name in options.divergences]
    ring = {name: cell(runs(name, "ring", "f_distill/ring.yaml", options)) for name in asked}
    settings = {"seeds": options.seeds, "steps": options.steps}
    write_report({**settings, "grid": grid, "ring": ring}, options.folder / "divergences.json")
    (options.folder / "divergences.md").write_text(table(grid) + "\n", encoding="utf-8")
    print(table(grid))


if __name__ == "__main__":
    main()
