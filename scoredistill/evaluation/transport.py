"""Optimal transport between two finite sets."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.evaluation.rows import as_rows, same_width


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """Exact 2-Wasserstein distance of two sets of n points:

        sqrt(min_s mean_i |a_i - b_s(i)|^2)    over permutations s

    The cost is O(n^3), about a second for n = 1000. The distance of two sets from the same distribution is not 0 but a
    floor that decreases slowly with n; compare with this floor.

    Computational Optimal Transport, 2018, arXiv:1803.00567.

    Args:
        a: (n, *D).
        b: (n, *D).

    Raises:
        ValueError: if the sets differ in size or shape.
        ImportError: if SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("wasserstein2 needs SciPy: install scipy") from error
    x, y = as_rows(a, "a", least=1), as_rows(b, "b", least=1)
    same_width(x, y)
    if len(x) != len(y):
        raise ValueError(f"a and b must have equally many points, got {len(x)} and {len(y)}")
    cost = torch.cdist(x, y).square()
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(cost.numpy()))
    return float((x[rows] - y[columns]).square().sum(1).mean().sqrt())
