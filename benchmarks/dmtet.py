"""Time and memory of DMTet for several grids: marching tetrahedra, and a picture forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/dmtet.py [--grids 64 128 256]

One particle, a ball, one picture of 128 x 128 in float32 on the CPU, a texture of 64^3. Each grid runs in a separate
process. Peak memory is counted after the imports; times are CPU seconds of the process, the best of five. Prints a
table and writes JSON into benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from scoredistill.generators import DMTet
from scoredistill.generators.dmtet.surface import marching_tetrahedra
from scoredistill.rendering.camera import Camera
from scoredistill.types import Batch, Condition

RESULTS = Path(__file__).parent / "results" / "dmtet.json"


def peak() -> int:
    """The peak memory of the process, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of the process, the best of several calls."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(grid: int) -> dict[str, float]:
    """Metrics of one grid, in this process."""
    before = peak()
    generator = DMTet(grid=grid, resolution=128)
    one = torch.ones(1)
    batch = Batch(Condition(camera=Camera.orbit(30 * one, 20 * one, 2.6 * one, 40 * one)))
    forward = best(lambda: generator(batch))
    both = best(lambda: generator(batch).x.square().mean().backward())
    with torch.no_grad():
        surface = marching_tetrahedra(generator.geometry.grid)
        marching = best(lambda: marching_tetrahedra(generator.geometry.grid))
    return {
        "grid": grid,
        "faces": len(surface.faces),
        "marching_s": round(marching, 3),
        "forward_s": round(forward, 3),
        "forward_backward_s": round(both, 3),
        "peak_mb": round((peak() - before) / 1e6),
    }


def main() -> None:
    """Measure every grid, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        print(json.dumps(measure(args.only)))
        return
    command = [sys.executable, __file__, "--only"]
    runs = [json.loads(subprocess.check_output([*command, str(grid)], text=True)) for grid in args.grids]
    made_with = {"torch": torch.__version__, "threads": torch.get_num_threads(), "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**made_with, "runs": runs}, indent=2) + "\n")
    print(" | ".join(runs[0]))
    for run in runs:
        print(" | ".join(map(str, run.values())))


if __name__ == "__main__":
    main()
