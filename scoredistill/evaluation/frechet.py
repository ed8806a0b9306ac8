"""Distances between two distributions of features: Fréchet distance and kernel distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.evaluation.rows import CHUNK_ELEMENTS, as_rows, same_width


@dataclass(frozen=True)
class GaussianFit:
    """Mean and covariance of a set of features, computed once for many comparisons.

    Args:
        mean: (F,).
        root: (F, F) symmetric square root of the unbiased covariance.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> GaussianFit:
        """Fit features (N, F), N >= 2. With N <= F the covariance has rank N - 1, which is supported.

        Raises:
            ValueError: if N < 2 or a feature is not finite.
        """
        rows = as_rows(features, "features")
        mean = rows.mean(0)
        centered = rows - mean
        values, vectors = torch.linalg.eigh(centered.T @ centered / (len(rows) - 1))
        # Rounding noise in the null space of a rank-deficient covariance would enter as its square root, 1e-8.
        floor = values.amax().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        roots = torch.where(values > floor, values.clamp(min=0), 0.0).sqrt()
        return cls(mean, (vectors * roots) @ vectors.T)

    def distance(self, other: GaussianFit) -> float:
        """Squared Fréchet distance to another fit; see `frechet_distance`."""
        same_width(self.mean[None], other.mean[None])
        # tr (S_a S_b)^(1/2) is the sum of the singular values of S_a^(1/2) S_b^(1/2), without complex roots.
        cross = torch.linalg.svdvals(self.root @ other.root).sum()
        traces = self.root.square().sum() + other.root.square().sum()
        return float(((self.mean - other.mean).square().sum() + traces - 2 * cross).clamp(min=0))


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of two fitted Gaussians:

        |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    With Inception features it is the FID. Its expectation decreases with the number of samples, so only values from
    equal numbers are comparable; with fewer samples than features it is finite but dominated by this bias.

    "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017), arXiv:1706.08500.

    Args:
        a: (N, F) features of one set, N >= 2.
        b: (M, F) features of the other, M >= 2.

    Returns:
        The squared distance, >= 0.

    Raises:
        ValueError: if a set has fewer than two rows, the rows differ in length or a number is not finite.
    """
    return GaussianFit.of(a).distance(GaussianFit.of(b))


def kernel_self_similarity(a: Tensor, degree: int = 3) -> float:
    """Mean of k(x, x') over pairs of different rows of one set, a term of `kernel_distance`.

    Args:
        a: (N, F), N >= 2.
        degree: degree of the polynomial kernel.
    """
    rows = as_rows(a, "features")
    diagonal = (rows.square().mean(1) + 1) ** degree
    return float((_kernel_sum(rows, rows, degree) - diagonal.sum()) / (len(rows) * (len(rows) - 1)))


def kernel_distance(a: Tensor, b: Tensor, degree: int = 3, self_b: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel k(x, y) = (x . y / F + 1)^degree:

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    With Inception features it is the KID. Unlike that of the Fréchet distance, its expectation does not depend on the
    number of samples. It can be slightly negative.

    "Demystifying MMD GANs" (2018), arXiv:1801.01401.

    Args:
        a: (N, F) features of one set, N >= 2.
        b: (M, F) features of the other, M >= 2.
        degree: degree of the polynomial kernel, >= 1.
        self_b: `kernel_self_similarity(b)`; None: it is computed.

    Raises:
        ValueError: if a set has fewer than two rows, the rows differ in length or a number is not finite.
    """
    rows_a, rows_b = as_rows(a, "features"), as_rows(b, "features")
    same_width(rows_a, rows_b)
    across = float(_kernel_sum(rows_a, rows_b, degree)) / (len(rows_a) * len(rows_b))
    within_b = kernel_self_similarity(rows_b, degree) if self_b is None else self_b
    return kernel_self_similarity(rows_a, degree) + within_b - 2 * across


def _kernel_sum(a: Tensor, b: Tensor, degree: int) -> Tensor:
    pieces = a.split(max(1, CHUNK_ELEMENTS // len(b)))
    return torch.stack([((piece @ b.T / a.shape[1] + 1) ** degree).sum() for piece in pieces]).sum()
