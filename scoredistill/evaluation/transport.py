"""Optimal transport between two finite sets."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.evaluation.rows import as_rows, same_width


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """Exact 2-Wasserstein distance of two sets of n points: sqrt(min_s mean_i |a_i - b_s(i)|^2) over permutations s.

    The cost grows as n^3: a second at n = 1000 or so. Two sets from one distribution are not at distance 0 but at a
    floor that falls slowly with n; compare with it.

    Computational Optimal Transport, 2018, arXiv:1803.00567.

    Args:
        a: (n, *D).
        b: (n, *D), as many.

    Raises:
        ValueError: if the sets differ in size or shape.
        ImportError: if SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("wasserstein2 needs SciPy: pip install scipy") from error
    x, y = as_rows(a, "a", least=1), as_rows(b, "b", least=1)
    same_width(x, y)
    if len(x) != len(y):
        raise ValueError(f"sets of {len(x)} and {len(y)} points cannot be matched one to one")
    cost = torch.cdist(x, y).square()
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(cost.numpy()))
    return float((x[rows] - y[columns]).square().sum(1).mean().sqrt())
