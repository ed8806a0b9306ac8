"""Time of the hash grid's forward and backward, compared with the naive eager form; prints JSON.

    python benchmarks/hash_grid.py [--points 200000] [--repeats 3] [--threads 1] [--device cpu]

The two take turns, one call each, so that other load on the machine slows both; the ratio is of the fastest calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scoredistill.generators.fields.encodings import HashGrid

PRIMES = (1, 2654435761, 805459861)


def naive(grid: HashGrid, points: Tensor) -> Tensor:
    """The usual form of the encoding of a single particle: eager, all corners at once, with autograd."""
    bits = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], device=points.device)
    features = []
    for resolution, entries, table in zip(grid.resolutions, grid.entries, grid.tables, strict=True):
        lattice = ((points + 1) / 2 * (resolution - 1)).clamp(0, resolution - 1)
        cell = lattice.detach().floor().clamp(max=resolution - 2)
        x, y, z = (cell.long()[:, None] + bits).unbind(-1)
        if entries == resolution**3:
            index = (x * resolution + y) * resolution + z
        else:
            index = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % entries
        fraction = (lattice - cell)[:, None]
        weight = torch.where(bits == 1, fraction, 1 - fraction).prod(dim=-1)
        features.append((weight[:, :, None] * table[0][index]).sum(dim=1))
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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
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
