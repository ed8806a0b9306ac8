"""Modes of an exact teacher, and the distance between sets of points by optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from scoredistill.evaluation.rows import as_rows, same_width
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.types import right_pad_dims


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """Exact 2-Wasserstein distance of two sets of n points:

        sqrt(min_s mean_i |a_i - b_s(i)|^2)    over permutations s

    The cost is O(n^3), about a second for n = 1000. The distance of two sets from the same distribution is not 0 but a
    floor that decreases slowly with n; compare with this floor.

    "Computational Optimal Transport" (2018), arXiv:1803.00567.

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


def responsibilities(x: Tensor, teacher: GaussianMixture, sigma: float = 0.01) -> Tensor:
    """Responsibilities p(k | x), (n, K).

    Args:
        x: (n, *D).
        teacher: the mixture.
        sigma: noise level at which they are evaluated, so that they exist for Diracs; small compared with the
            components' standard deviations.
    """
    log_snr = torch.full((len(x),), -2.0).to(x) * torch.log(torch.tensor(sigma)).to(x)
    t = teacher.schedule.t_at_log_snr(log_snr)
    return teacher.posterior(right_pad_dims(teacher.schedule.alpha(t), x).to(x) * x, t).responsibilities


def mode_statistics(x: Tensor, teacher: GaussianMixture, sigma: float = 0.01) -> dict[str, float]:
    """Coverage, weights and spread of samples under a mixture.

    Each sample is assigned to the component with the largest responsibility. `modes_covered` is the number of
    components with a sample; `weight_error` the largest |share - weight|; `spread` the ratio of the standard deviation
    of samples around the mean of their mode to that of the component (root mean square over dimensions and modes), 1
    for perfect samples; `within_3_std` the share of samples within three standard deviations of their component's mean
    (root mean square over dimensions).

    Args:
        x: (n, *D).
        teacher: the mixture.
        sigma: noise level at which responsibilities are evaluated, for mixtures of Diracs.
    """
    flat = x.flatten(1)
    modes = responsibilities(x, teacher, sigma).argmax(1)
    counts = torch.bincount(modes, minlength=len(teacher.means)).to(x)
    centers = torch.zeros_like(teacher.means).to(x).index_add_(0, modes, flat) / counts.clamp(min=1)[:, None]
    variance = teacher.variance.expand(len(teacher.means), flat.shape[1]).mean(1)
    if teacher.spread is not None:
        variance = variance + teacher.spread.sum(1) / flat.shape[1]
    metrics = {
        "modes_covered": float((counts > 0).sum()),
        "weight_error": float((counts / len(x) - teacher.log_weights.exp()).abs().max()),
    }
    if bool((variance > 0).all()):
        # The mean of each mode is estimated, which leaves n_k - 1 degrees of freedom.
        freedom = (counts - 1).clamp(min=0).sum().clamp(min=1)
        scaled = ((flat - centers[modes]) ** 2).mean(1) / variance[modes].to(x)
        metrics["spread"] = float((scaled.sum() / freedom).sqrt())
        distance = ((flat - teacher.means[modes].to(x)) ** 2).mean(1) / variance[modes].to(x)
        metrics["within_3_std"] = float((distance <= 9).to(x).mean())
    return metrics


def mode_histogram(x: Tensor, teacher: GaussianMixture, sigma: float = 0.01) -> Tensor:
    """Mode histogram h_k, the mean of p(k | x) over samples, (K,) in float64.

    Its expectation under the mixture is pi_k, even if components overlap; counts of the most responsible component
    would be biased.

    Args:
        x: (n, *D), n >= 1.
        teacher: the mixture.
        sigma: noise level at which responsibilities are evaluated, for mixtures of Diracs.

    Raises:
        ValueError: if there is no sample.
    """
    if not len(x):
        raise ValueError("a mode histogram needs at least one sample")
    return responsibilities(x, teacher, sigma).double().mean(0)


def mode_divergences(x: Tensor, teacher: GaussianMixture, sigma: float = 0.01) -> dict[str, float]:
    """Divergences of the mode histogram h from the weights pi.

        mode_kl               sum_k h_k log(h_k / pi_k), finite for any number of dropped modes
        mode_total_variation  1/2 sum_k |h_k - pi_k|, the share of samples in the wrong modes

    Args:
        x: (n, *D), n >= 1.
        teacher: the mixture.
        sigma: noise level at which responsibilities are evaluated, for mixtures of Diracs.
    """
    histogram = mode_histogram(x, teacher, sigma)
    log_weights = teacher.log_weights.double()
    kl = torch.special.xlogy(histogram, histogram) - histogram * log_weights
    return {
        "mode_kl": float(kl.sum().clamp(min=0)),
        "mode_total_variation": float((histogram - log_weights.exp()).abs().sum() / 2),
    }
