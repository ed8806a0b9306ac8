"""Every divergence with an exact and with a learned ratio: modes reached, distance to the teacher, variance of h.

    uv run python benchmarks/divergences.py                         # 9 divergences x 2 ratios x 5 seeds, an hour
    uv run python benchmarks/divergences.py --seeds 1 --steps 300   # a quick look

Each run is an ordinary `scoredistill fit` of recipes/f_distill/grid.yaml or grid_learned.yaml in a folder of its own;
runs that are there already are not done again. Beside each divergence stands the variance of h that THEORY's law 10
has for a Gaussian pair at mean gap 1, measured anew by sampling. It prints a table and writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean, median, stdev

import torch
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


def run(name: str, ratio: str, seed: int, steps: int, folder: Path) -> Path:
    """The finished run of one cell."""
    words = ["--model.loss.init_args.divergence", name, "--seed_everything", str(seed)]
    words += ["--model.loss.init_args.divergence.alpha", "0.5"] if name == "Alpha" else []
    words += ["--trainer.max_steps", str(steps), "--trainer.enable_progress_bar", "false"]
    return finished_run(RATIOS[ratio], folder / f"{steps}_steps" / name / ratio / f"seed_{seed}", *words)


def variance_of_h(path: Path) -> float:
    """Var(h) / E(h)^2 = 1 / (effective sample size) - 1, the mean over the last half of training."""
    with next(path.glob("logs/*/metrics.csv")).open() as file:
        sizes = [float(row["objective/h/effective_sample_size"]) for row in csv.DictReader(file) if row["loss"]]
    return mean(1 / size - 1 for size in sizes[len(sizes) // 2 :])


def variance_at_gap_one(divergence: Divergence, n: int = 1_000_000) -> float:
    """Var_q(h) / E_q(h)^2 for p = N(0, 1) and q = N(1, 1), by sampling."""
    x = 1 + torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = divergence.h_from_log(0.5 - x)
    return float(h.var() / h.mean() ** 2)


def cell(runs: list[Path]) -> dict[str, float]:
    """Figures of several seeds."""
    found = [metrics(path) for path in runs]
    covered, distance = ([m[key] for m in found] for key in ("modes_covered", "wasserstein2"))
    return {
        "modes_median": median(covered),
        "modes_least": min(covered),
        "within_3_std": mean(m["within_3_std"] for m in found),
        "wasserstein2": mean(distance),
        "wasserstein2_se": stdev(distance) / len(distance) ** 0.5 if len(distance) > 1 else 0.0,
        "variance_of_h": mean(variance_of_h(path) for path in runs),
        "seconds": mean(m["seconds"] for m in found),
    }


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--divergences", nargs="+", default=list(DIVERGENCES), choices=list(DIVERGENCES))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/divergences"))
    options = parser.parse_args()
    table: dict[str, dict[str, object]] = {}
    for name in options.divergences:
        table[name] = {"variance_at_gap_one": variance_at_gap_one(DIVERGENCES[name])}
        for ratio in RATIOS:
            runs = [run(name, ratio, seed, options.steps, options.folder) for seed in range(options.seeds)]
            table[name][ratio] = cell(runs)
    write_report({"seeds": options.seeds, "steps": options.steps, **table}, options.folder / "divergences.json")


if __name__ == "__main__":
    main()
