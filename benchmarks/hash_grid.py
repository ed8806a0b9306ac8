"""Time of the hash grid's forward and backward against the naive eager form; prints JSON.

    python benchmarks/hash_grid.py [--points 200000] [--repeats 3] [--device cpu]

The two are timed in turn, one call each, so that a busy machine slows both; the ratio is of the fastest calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scoredistill.generators.nerf.hashgrid import HashGrid

PRIMES = (1, 2654435761, 805459861)


def naive(grid: HashGrid, points: Tensor) -> Tensor:
    """The encoding of a single particle as one would write it at first: eager, in int64, autograd for all of it."""
    features = []
    for resolution, entries, table in zip(grid.resolutions, grid.entries, grid.tables, strict=True):
        lattice = ((points + 1) / 2 * (resolution - 1)).clamp(0, resolution - 1)
        cell = lattice.detach().floor().clamp(max=resolution - 2)
        fraction, cell = lattice - cell, cell.long()
        total = torch.zeros(len(points), grid.channels, dtype=points.dtype, device=points.device)
        for corner in range(8):
            bit = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=points.device)
            vertex = cell + bit
            if entries == resolution**3:
                index = (vertex[:, 0] * resolution + vertex[:, 1]) * resolution + vertex[:, 2]
            else:
                index = (vertex[:, 0] * PRIMES[0] ^ vertex[:, 1] * PRIMES[1] ^ vertex[:, 2] * PRIMES[2]) % entries
            weight = torch.where(bit == 1, fraction, 1 - fraction).prod(dim=1)
            total = total + weight[:, None] * table[0][index]
        features.append(total)
    return torch.cat(features, dim=1)


def timed(encode: Callable[[Tensor], Tensor], points: Tensor) -> float:
    """Seconds of one forward and backward."""
    start = time.perf_counter()
    encode(points).square().sum().backward()
    if points.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    rng = torch.Generator().manual_seed(0)
    grid = HashGrid()
    grid.allocate(1, rng)
    grid.to(args.device)
    points = (2 * torch.rand(args.points, 3, generator=rng) - 1).to(args.device)
    particle = torch.zeros(args.points, dtype=torch.long, device=args.device)
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(timed(lambda p: grid(p, particle), points))
        theirs.append(timed(lambda p: naive(grid, p), points))
    result = {
        "points": args.points,
        "levels": len(grid.entries),
        "features": grid.features,
        "hash_grid_ms": round(1e3 * min(ours), 1),
        "naive_ms": round(1e3 * min(theirs), 1),
        "ratio": round(min(theirs) / min(ours), 2),
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
