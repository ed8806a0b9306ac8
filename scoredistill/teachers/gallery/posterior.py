"""Posteriors and samples of grouped mixtures, in the order of the batch's rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.teachers.gallery.mixtures import Group, Mixture

VALUES_AT_ONCE = 1 << 25
"""Maximum number of values (rows x components x dimensions) in one evaluation of a mixture, which bounds memory."""


def posterior(
    x: Tensor, alpha: Tensor, sigma: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float
) -> MixturePosterior:
    """Score, log-density and responsibilities of each row under its group's mixture.

    Args:
        x: (B, 3, H, W) diffused pictures.
        alpha, sigma: (B,).
        mixtures: groups that together contain all rows of the batch, and their mixtures.
        pixel_std: standard deviation of independent pixel noise.

    Returns:
        epsilon (B, 3 H W), log_prob (B,), and responsibilities (B, K), padded with 0 for smaller mixtures.
    """
    rows, results = [], []
    for group, mixture in mixtures:
        variance = mixture.means.new_full((len(mixture.means), 1), pixel_std**2)
        factors = mixture.factors
        covariance = Covariance(variance) if factors is None else Covariance.low_rank(variance, factors)
        for block in group.rows.split(max(1, VALUES_AT_ONCE // mixture.means.numel())):
            row = block.to(x.device)
            at = x[row].flatten(1), alpha[row], sigma[row]
            results.append(diffused_mixture(*at, mixture.means, mixture.log_weights, covariance))
            rows.append(block)
    order = torch.cat(rows).argsort().to(x.device)
    width = max(result.responsibilities.shape[1] for result in results)
    padded = [pad(result.responsibilities, (0, width - result.responsibilities.shape[1])) for result in results]
    return MixturePosterior(
        torch.cat([result.epsilon for result in results])[order],
        torch.cat([result.log_prob for result in results])[order],
        torch.cat(padded)[order],
    )


def draw(like: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float, rng: torch.Generator | None) -> Tensor:
    """Draw one clean picture per row.

    Args:
        like: (n, 3, H, W) with the result's shape, dtype and device.
        mixtures: groups that together contain all rows of the batch, and their mixtures.
        pixel_std: standard deviation of independent pixel noise.
        rng: CPU generator; None: torch's global one.
    """
    choice = torch.rand(len(like), dtype=torch.float64, generator=rng)
    noise = torch.randn(like.shape, dtype=torch.float64, generator=rng).to(like)
    rows, pictures = [], []
    for group, mixture in mixtures:
        cumulative = mixture.log_weights.double().exp().cumsum(0).cpu()
        drawn = torch.searchsorted(cumulative, choice[group.rows] * cumulative[-1], right=True)
        k = drawn.clamp(max=len(cumulative) - 1).to(like.device)
        picture = mixture.means[k]
        if mixture.factors is not None:
            z = torch.randn(len(k), mixture.factors.shape[1], dtype=torch.float64, generator=rng).to(like)
            picture = picture + torch.einsum("nr,nrd->nd", z, mixture.factors[k])
        rows.append(group.rows)
        pictures.append(picture)
    clean = torch.cat(pictures)[torch.cat(rows).argsort().to(like.device)]
    return clean.reshape(like.shape) + pixel_std * noise
