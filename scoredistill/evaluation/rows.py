"""Sets of samples or features as checked float64 rows, with computations in pieces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**24
"""Largest number of distances or kernel values per piece."""


def as_rows(x: Tensor, name: str, least: int = 2) -> Tensor:
    """Convert (N, *D) to (N, D) in float64 on the CPU.

    Args:
        x: (N, *D), finite.
        name: name of the argument, for the message.
        least: smallest allowed N.

    Raises:
        ValueError: if there are too few rows, or a number is not finite.
    """
    if x.ndim < 2 or len(x) < least:
        raise ValueError(f"{name}: expected at least {least} rows (N, *D), got shape {tuple(x.shape)}")
    rows = x.detach().flatten(1).to("cpu", torch.float64)
    if not bool(rows.isfinite().all()):
        raise ValueError(f"{name}: {int((~rows.isfinite()).any(1).sum())} of {len(rows)} rows are not finite")
    return rows


def same_width(a: Tensor, b: Tensor) -> None:
    """Check that the rows of two sets have the same length.

    Raises:
        ValueError: if they differ.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"rows of {a.shape[1]} and {b.shape[1]} numbers cannot be compared")


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
    """Compute function(x) on `rows` rows at a time."""
    return torch.cat([function(piece) for piece in x.split(max(1, rows))])


def smallest_distances(x: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances to the `count` nearest points and their indices, each (N, count), nearest first.

    Args:
        x: (N, D).
        points: (M, D), M >= count.
        count: number of nearest points.
    """
    parts = [torch.cdist(piece, points).topk(count, largest=False).indices for piece in x.split(_piece(points))]
    index = torch.cat(parts)
    # torch.cdist loses half of the digits of small distances, especially of copies, so they are computed again.
    distance = torch.stack([(x - points[index[:, i]]).norm(dim=1) for i in range(count)], dim=1)
    order = distance.argsort(dim=1, stable=True)
    return distance.gather(1, order), index.gather(1, order)


def distances_to_others(x: Tensor, count: int) -> Tensor:
    """Distances of each row to its `count` nearest other rows, (N, count); copies are at distance 0.

    Args:
        x: (N, D), N > count.
        count: number of nearest rows.
    """
    distance, index = smallest_distances(x, x, count + 1)
    is_self = index == torch.arange(len(x))[:, None]
    # Among many copies the row itself may be missing; then all distances are 0, and the first one is removed.
    is_self[:, 0] |= ~is_self.any(1)
    return distance[~is_self].view(len(x), count)


def _piece(points: Tensor) -> int:
    return max(1, CHUNK_ELEMENTS // len(points))
