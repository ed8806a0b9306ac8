"""The diffused Gaussian mixture in closed form: the exact score behind every exact teacher and critic.

p_t(x_t) = sum_k pi_k N(x_t; alpha mu_k, C_k),    C_k = alpha^2 Sigma_k + sigma^2 I
epsilon(x_t) = -sigma grad log p_t(x_t) = sigma sum_k p(k | x_t) C_k^{-1} (x_t - alpha mu_k)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Covariance:
    """Sigma_k = diag(variance_k) + U_k^T diag(spread_k) U_k, one per component.

    Args:
        variance: (..., K, 1) isotropic or (..., K, D) diagonal part, >= 0; K may be 1, for all components the same.
        basis: (..., K, R, D) with orthonormal rows U_k, or None; requires an isotropic `variance`.
        spread: (..., K, R) variance along each row of the basis, on top of the isotropic part.
    """

    variance: Tensor
    basis: Tensor | None = None
    spread: Tensor | None = None

    @classmethod
    def full(cls, matrices: Tensor) -> Covariance:
        """From (K, D, D) symmetric positive semi-definite matrices, by eigendecomposition."""
        values, vectors = torch.linalg.eigh(matrices)
        if values.min() < -1e-6 * values.abs().max():
            raise ValueError(f"covariances must be positive semi-definite; an eigenvalue is {values.min():.3g}")
        # The smallest eigenvalue is the isotropic part, so that C can be inverted without noise.
        values = values.clamp(min=0)
        least = values[..., :1]
        return cls(least, vectors.transpose(-1, -2), values - least)

    @classmethod
    def low_rank(cls, variance: Tensor, factors: Tensor) -> Covariance:
        """variance_k I + F_k^T F_k, from variance (..., K, 1) and factors F (..., K, R, D), R <= D."""
        # The R x R Gram matrix is cheaper to diagonalize than F itself; directions without variance get no row.
        values, vectors = torch.linalg.eigh(factors @ factors.transpose(-1, -2))
        floor = values.amax(-1, keepdim=True).clamp(min=1e-30) * 1e-6
        kept = values > floor
        scale = torch.where(kept, values.clamp(min=1e-30).rsqrt(), 0.0)
        basis = scale[..., None] * (vectors.transpose(-1, -2) @ factors)
        return cls(variance, basis, torch.where(kept, values, 0.0))

    @property
    def isotropic(self) -> bool:
        """Whether every C_k is a multiple of the identity."""
        return self.basis is None and self.variance.shape[-1] == 1

    @property
    def least(self) -> Tensor:
        """The smallest variance of all components, a scalar; densities without noise exist only if it is positive."""
        return self.variance.min()

    def to(self, dtype: torch.dtype) -> Covariance:
        """Convert to another floating-point type."""
        parts = (None if part is None else part.to(dtype) for part in (self.basis, self.spread))
        return Covariance(self.variance.to(dtype), *parts)

    def solve(self, delta: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """C^{-1} delta and log det C.

        Args:
            delta: (B, K, D).
            alpha, sigma: (B, 1, 1).

        Returns:
            (B, K, D) and (B, K).
        """
        base = alpha**2 * self.variance + sigma**2
        dims = delta.shape[-1]
        log_det = base.log().sum(-1) * (dims // base.shape[-1])
        solved = delta / base
        if self.basis is not None and self.spread is not None:
            spread = alpha**2 * self.spread  # (B, K, R)
            along = torch.einsum("...krd,...kd->...kr", self.basis, delta)
            excess = spread / (base * (base + spread)) * along
            solved = solved - torch.einsum("...krd,...kr->...kd", self.basis, excess)
            log_det = log_det + torch.log1p(spread / base).sum(-1)
        return solved, log_det


@dataclass(frozen=True)
class MixturePosterior:
    """Score, density and responsibilities of a diffused mixture at x_t.

    Args:
        epsilon: (B, D).
        log_prob: (B,) log p_t(x_t).
        responsibilities: (B, K) p(k | x_t).
    """

    epsilon: Tensor
    log_prob: Tensor
    responsibilities: Tensor

    @classmethod
    def cat(cls, parts: Sequence[MixturePosterior]) -> MixturePosterior:
        """Concatenate along the batch."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def diffused_mixture(
    x_t: Tensor, alpha: Tensor, sigma: Tensor, means: Tensor, log_weights: Tensor, covariance: Covariance
) -> MixturePosterior:
    """Score, log-density and responsibilities of a diffused Gaussian mixture at x_t.

    Args:
        x_t: (B, D).
        alpha, sigma: (B,), the diffused covariances must be positive definite.
        means: (K, D), or (B, K, D) if they differ between samples.
        log_weights: (K,) or (B, K), normalized; -inf excludes a component.
        covariance: of the undiffused components.

    Returns:
        in the type of x_t, at least float32.
    """
    # No half precision in products, whatever precision the networks are trained in.
    dtype = torch.promote_types(x_t.dtype, torch.float32)
    x_t = x_t.to(dtype)
    means = means.to(dtype)
    log_weights = log_weights.to(dtype)
    covariance = covariance.to(dtype)
    with torch.autocast(x_t.device.type, enabled=False):
        if means.ndim == 2 and covariance.isotropic:
            return _shared_isotropic(x_t, alpha, sigma, means, log_weights, covariance.variance[:, 0])
        return _general(x_t, alpha, sigma, means, log_weights, covariance)


def _general(
    x_t: Tensor, alpha: Tensor, sigma: Tensor, means: Tensor, log_weights: Tensor, covariance: Covariance
) -> MixturePosterior:
    a, s = alpha[:, None, None], sigma[:, None, None]
    delta = x_t[:, None] - a * means
    solved, log_det = covariance.solve(delta, a, s)
    log_joint = log_weights - 0.5 * ((delta * solved).sum(-1) + log_det + x_t.shape[-1] * math.log(2 * math.pi))
    responsibilities = log_joint.softmax(-1)
    epsilon = sigma[:, None] * torch.einsum("bk,bkd->bd", responsibilities, solved)
    return MixturePosterior(epsilon, log_joint.logsumexp(-1), responsibilities)


def _shared_isotropic(
    x_t: Tensor, alpha: Tensor, sigma: Tensor, means: Tensor, log_weights: Tensor, variance: Tensor
) -> MixturePosterior:
    """All distances by one matrix product, in float64 because ||x||^2 - 2 x.mu + ||mu||^2 cancels at small sigma."""
    dims = x_t.shape[-1]
    dtype = x_t.dtype
    x = x_t.double()
    mu = means.double()
    a = alpha.double()[:, None]
    s = sigma.double()[:, None]
    base = a**2 * variance.double() + s**2  # (B, K), or (B, 1) if all components share one variance
    # Two further columns give -||x - a mu||^2 / 2 in the same product: passes over B x K numbers dominate the cost.
    rows = torch.cat([a * x, -0.5 * a**2, -0.5 * (x * x).sum(-1, keepdim=True)], 1)
    columns = torch.cat([mu, (mu * mu).sum(-1, keepdim=True), torch.ones_like(mu[:, :1])], 1)
    log_joint = (rows @ columns.T) / base + (log_weights - 0.5 * dims * (2 * math.pi * base).log())
    largest = log_joint.detach().amax(-1, keepdim=True)
    joint = (log_joint - largest).exp()
    total = joint.sum(-1, keepdim=True)
    responsibilities = joint / total
    pull = responsibilities / base
    epsilon = s * (pull.sum(-1, keepdim=True) * x - a * (pull @ mu))
    log_prob = (largest + total.log())[:, 0]
    return MixturePosterior(epsilon.to(dtype), log_prob.to(dtype), responsibilities.to(dtype))
