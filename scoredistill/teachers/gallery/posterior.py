"""What grouped mixtures say of a batch, and pictures drawn from them, in the order of the batch's rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.teachers.gallery.mixtures import Group, Mixture

VALUES_AT_ONCE = 1 << 25
"""Values of (rows, components, dimensions) in one call to the mixture, which bounds its memory."""


def posterior(
    x: Tensor, alpha: Tensor, sigma: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float
) -> MixturePosterior:
    """Score, log-density and responsibilities of each row under its own group's mixture.

    Args:
        x: (B, 3, H, W) diffused pictures.
        alpha, sigma: (B,).
        mixtures: groups whose rows make up the batch.
        pixel_std: standard deviation of independent pixel noise.

    Returns:
        epsilon (B, 3 H W), log_prob (B,), and responsibilities (B, K), 0 beyond the components of a row's own mixture.
    """
    rows, answers = [], []
    for group, mixture in mixtures:
        variance = mixture.means.new_full((len(mixture.means), 1), pixel_std**2)
        factors = mixture.factors
        covariance = Covariance(variance) if factors is None else Covariance.low_rank(variance, factors)
        for some in group.rows.split(max(1, VALUES_AT_ONCE // mixture.means.numel())):
            row = some.to(x.device)
            at = x[row].flatten(1), alpha[row], sigma[row]
            answers.append(diffused_mixture(*at, mixture.means, mixture.log_weights, covariance))
            rows.append(some)
    order = torch.cat(rows).argsort().to(x.device)
    width = max(answer.responsibilities.shape[1] for answer in answers)
    joint = [pad(answer.responsibilities, (0, width - answer.responsibilities.shape[1])) for answer in answers]
    return MixturePosterior(
        torch.cat([answer.epsilon for answer in answers])[order],
        torch.cat([answer.log_prob for answer in answers])[order],
        torch.cat(joint)[order],
    )


def draw(like: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float, rng: torch.Generator | None) -> Tensor:
    """One clean picture a row.

    Args:
        like: (n, 3, H, W) for shape, floating point type and device.
        mixtures: groups whose rows make up the batch.
        pixel_std: standard deviation of independent pixel noise.
        rng: CPU generator; None: torch's global one.
    """
    choice = torch.rand(len(like), dtype=torch.float64, generator=rng)
    noise = torch.randn(like.shape, dtype=torch.float64, generator=rng).to(like)
    rows, pictures = [], []
    for group, mixture in mixtures:
        upto = mixture.log_weights.double().exp().cumsum(0).cpu()
        drawn = torch.searchsorted(upto, choice[group.rows] * upto[-1], right=True).clamp(max=len(upto) - 1)
        k = drawn.to(like.device)
        picture = mixture.means[k]
        if mixture.factors is not None:
            z = torch.randn(len(k), mixture.factors.shape[1], dtype=torch.float64, generator=rng).to(like)
            picture = picture + torch.einsum("nr,nrd->nd", z, mixture.factors[k])
        rows.append(group.rows)
        pictures.append(picture)
    clean = torch.cat(pictures)[torch.cat(rows).argsort().to(like.device)]
    return clean.reshape(like.shape) + pixel_std * noise
