"""Weighted sums of table rows, the expensive step of grid encodings, with cheap derivatives of any order.

    y_p = sum_k w_kp T[i_kp]

is linear in the table T and in the weights w. Its adjoints are a scatter and a row-wise dot product. The three
operations below are each other's derivatives, so autograd computes normals and their gradients without extra code.
Indices and weights are (k, P), corner by corner, so that all operations except the gather run along contiguous memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def gather(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """`weighted_gather` without derivatives."""
    if not _in_pairs(table):
        return embedding_bag(index.t().contiguous(), table, per_sample_weights=weight.t().contiguous(), mode="sum")
    pairs = table.shape[1] // 2
    flat = torch.view_as_complex(table.view(-1, 2))
    sums = []
    for pair in range(pairs):
        first, *others = index if pairs == 1 else index * pairs
        total = flat[pair:].index_select(0, first).mul_(weight[0])
        for i, w in zip(others, weight[1:], strict=True):
            total += flat[pair:].index_select(0, i).mul_(w)
        sums.append(total)
    return torch.view_as_real(torch.stack(sums, dim=1)).flatten(1)


def scatter_add(table: Tensor, index: Tensor, weight: Tensor, value: Tensor) -> None:
    """T[r] += sum over (k, p) with i_kp = r of w_kp v_p, in place and without derivatives.

    Args:
        table: (rows, C), contiguous.
        index: (k, P) integers in [0, rows).
        weight: (k, P).
        value: (P, C).
    """
    if not _in_pairs(table):
        table.index_add_(0, index.flatten(), (weight[:, :, None] * value).flatten(0, 1))
        return
    pairs = table.shape[1] // 2
    flat = torch.view_as_complex(table.view(-1, 2))
    values = torch.view_as_complex(value.contiguous().view(-1, pairs, 2)).t().contiguous()
    place = index.flatten().long()
    if pairs > 1:
        place *= pairs
    for pair, v in enumerate(values):
        flat[pair:].scatter_add_(0, place, (weight * v).flatten())


def _in_pairs(table: Tensor) -> bool:
    # On a CPU, gathers and scatters of single numbers are three to ten times as fast as those of short rows. Two
    # channels are stored as one complex number.
    even = table.shape[1] % 2 == 0
    plain = table.dtype in (torch.float32, torch.float64)
    return even and plain and table.device.type == "cpu" and table.is_contiguous()


class _Gather(torch.autograd.Function):
    """y_p = sum_k w_kp T[i_kp]: (rows, C), (k, P), (k, P) -> (P, C)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        return gather(table, index, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, index, weight = ctx.saved_tensors
        on_table, _, on_weight = ctx.needs_input_grad
        return (
            _Scatter.apply(grads[0], index, weight, len(table)) if on_table else None,
            None,
            _Dot.apply(table, index, grads[0]) if on_weight else None,
        )


class _Scatter(torch.autograd.Function):
    """T[r] = sum over (k, p) with i_kp = r of w_kp v_p: (P, C), (k, P), (k, P) -> (rows, C)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, index: Tensor, weight: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(value, index, weight)
        table = value.new_zeros(rows, value.shape[1])
        scatter_add(table, index, weight, value)
        return table

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        value, index, weight = ctx.saved_tensors
        on_value, _, on_weight, _ = ctx.needs_input_grad
        return (
            _Gather.apply(grads[0], index, weight) if on_value else None,
            None,
            _Dot.apply(grads[0], index, value) if on_weight else None,
            None,
        )


class _Dot(torch.autograd.Function):
    """w_kp = <T[i_kp], v_p>: (rows, C), (k, P), (P, C) -> (k, P)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, value)
        return torch.stack([(table.index_select(0, i) * value).sum(1) for i in index])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, index, value = ctx.saved_tensors
        on_table, _, on_value = ctx.needs_input_grad
        return (
            _Scatter.apply(value, index, grads[0], len(table)) if on_table else None,
            None,
            _Gather.apply(table, index, grads[0]) if on_value else None,
        )


def weighted_gather(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """y_p = sum_k w_kp T[i_kp], differentiable to any order in the table and the weights.

    Args:
        table: (rows, C).
        index: (k, P) integers in [0, rows).
        weight: (k, P), with the table's dtype.

    Returns:
        (P, C).
    """
    return _Gather.apply(table, index, weight)


def corners(points: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The lattice cell of each point, and the trilinear weights of the cell's corners.

    Args:
        points: (P, 3); points outside [-1, 1]^3 are clamped to it.
        resolution: vertices along each axis, >= 2; the outermost are at -1 and 1.

    Returns:
        (3, P) int32 lowest corners, and (8, P) weights of the corners in the order of `CORNERS`, differentiable in the
        points.
    """
    lattice = ((points.t() + 1) * ((resolution - 1) / 2)).clamp(0, resolution - 1)
    cell = lattice.detach().floor().clamp(max=resolution - 2)
    x, y, z = lattice - cell
    x, y = torch.stack([1 - x, x]), torch.stack([1 - y, y])
    xy = (x[:, None] * y).flatten(0, 1)
    upper = xy * z
    # The lower half is xy (1 - z), which saves a product.
    return cell.int(), torch.stack([xy - upper, upper], dim=1).flatten(0, 1)


CORNERS = tuple((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1))
"""Offsets of a cell's corners from its lowest corner, in the order of the weights."""
