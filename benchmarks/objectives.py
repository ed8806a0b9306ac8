"""Every objective on points, pictures, NeRFs and a one-step student: runs the four studies and collects their results.

    uv run python benchmarks/objectives.py                     # all, hours on two cores; resumes what was stopped
    uv run python benchmarks/objectives.py --carriers points   # one of points, digits, nerf, student

Writes benchmarks/results/objectives.json, from which docs/howto/objectives.md has its table.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

CARRIERS = ("points", "digits", "nerf", "student")
STUDIES = Path("recipes/studies/objectives")
RUNS = Path("runs/studies/objectives")
RESULTS = Path("benchmarks/results/objectives.json")


def ablate(carrier: str) -> None:
    """Run or resume a study. Runs that fail are part of its results."""
    command = ["scoredistill", "ablate", str(STUDIES / f"{carrier}.yaml"), "--output", str(RUNS / carrier)]
    subprocess.run([sys.executable, "-m", *command], check=False)


def costs(folder: Path, objective: str) -> dict[str, float]:
    """Mean seconds and network calls per step over the seeds that finished."""
    found = [
        json.loads(path.read_text()) for path in (folder / "runs" / f"objective={objective}").glob("*/*/cost.json")
    ]
    if not found:
        return {}
    per_step = [{key: cost[key] / cost["steps"] for key in ("seconds", "network_calls")} for cost in found]
    return {f"{key}_per_step": statistics.mean(each[key] for each in per_step) for key in per_step[0]}


def collected(folder: Path) -> dict[str, dict[str, Any]]:
    """Objective -> its metrics with standard errors and number of seeds, and its costs."""
    found: dict[str, dict[str, Any]] = {}
    with (folder / "summary.csv").open() as file:
        for row in csv.DictReader(file):
            own = found.setdefault(row["objective"], {"metrics": {}, **costs(folder, row["objective"])})
            if int(row["n"]):
                numbers = {key: float(row[key]) for key in ("mean", "standard_error") if row[key]}
                own["metrics"][row["metric"]] = {"n": int(row["n"]), **numbers}
    return found


def main() -> None:
    """Run the studies, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--carriers", nargs="*", choices=CARRIERS, default=CARRIERS)
    parser.add_argument("--collect", action="store_true", help="only collect the results that are there")
    arguments = parser.parse_args()
    for carrier in () if arguments.collect else arguments.carriers:
        ablate(carrier)
    known = json.loads(RESULTS.read_text())["carriers"] if RESULTS.exists() else {}
    for carrier in arguments.carriers:
        if (RUNS / carrier / "summary.csv").exists():
            known[carrier] = collected(RUNS / carrier)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    content = {"command": "uv run python benchmarks/objectives.py", "versions": versions, "carriers": known}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {RESULTS}: {', '.join(f'{name} {len(each)}' for name, each in known.items())}")


if __name__ == "__main__":
    main()
