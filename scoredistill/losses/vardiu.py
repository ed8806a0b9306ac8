"""A variational bound on the reverse KL, without a critic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from scoredistill.critics.analytic import ParticleCritic
from scoredistill.critics.critic import TrainedPart
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.losses.distillation import GradientNormalizer, ScoreDistillation
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.modules import eval_mode
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims


class Posterior(nn.Module, ABC):
    """A model rho(z | x_t) of what a sample was made from. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, diffused: Diffused) -> Tensor:
        """sigma_t grad log rho(z | x_t), the gradient in x_t at the sample's own z, (B, *D)."""


class ParticlePosterior(Posterior):
    """The exact posterior of the particle, for generators with particles:

        sigma_t grad log rho(i | x_t) = epsilon_q(x_t) - epsilon

    with epsilon_q the exact mixture over the particles.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixture = ParticleCritic()

    def forward(self, diffused: Diffused) -> Tensor:
        return self.mixture(diffused).epsilon - diffused.epsilon


class GaussianPosterior(Posterior, TrainedPart):
    """rho(z | x_t) = N(z; m(x_t, t), s(t)^2 I) for generators from noise z, trained by maximum likelihood.

    m is the clean prediction of a denoiser in which z takes the place of the clean sample, and log s a quadratic
    function of the log-SNR.

    Args:
        network: the backbone of m.
        prediction: what the backbone outputs, for a clean sample of unit variance.
    """

    def __init__(self, network: Backbone, prediction: Parameterization = "v") -> None:
        super().__init__()
        self.denoiser = Denoiser(network, prediction, sigma_data=1.0)
        self.log_s = nn.Parameter(torch.zeros(3))

    def log_prob(self, diffused: Diffused) -> Tensor:
        """log rho(z | x_t) without its constant, averaged over the dimensions of z, (B,).

        Raises:
            ValueError: if the samples carry no noise z of the shape of x.
        """
        z, x_t = diffused.sample.noise, diffused.x_t
        if z is None or z.shape != x_t.shape:
            raise ValueError("GaussianPosterior needs a generator from noise of the samples' shape, as OneStepUNet")
        level = diffused.schedule.log_snr(diffused.t).clamp(-20, 20).to(self.log_s) / 10
        log_s = self.log_s[0] + level * self.log_s[1] + level**2 * self.log_s[2]
        m = self.denoiser(x_t, diffused.t, diffused.condition, diffused.schedule).x0
        square = (z.detach().to(m) - m).square().flatten(1).mean(1)
        return -0.5 * square * (-2 * log_s).exp().to(m) - log_s.to(m)

    def forward(self, diffused: Diffused) -> Tensor:
        with torch.enable_grad():
            x_t = diffused.x_t.detach().requires_grad_()
            log_prob = self.log_prob(replace(diffused, x_t=x_t)) * x_t[0].numel()
            (slope,) = torch.autograd.grad(log_prob.sum(), x_t)
        return right_pad_dims(diffused.sigma, slope) * slope

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        return -self.log_prob(diffused)


class VarDiU(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t) - sigma_t grad log rho(z | x_t))

    From KL(q_t || p_t) <= E[log q(x_t | z) + log p(z) - log rho(z | x_t) - log p_t(x_t)], where z is what the generator
    makes x from. No critic is needed; the bound is tight for the exact posterior, with which g is `VSD` in expectation.

    "VarDiU: A Variational Diffusive Upper Bound for One-Step Diffusion Distillation" (2025), arXiv:2508.20646.

    Args:
        posterior: rho: a `GaussianPosterior` for one-step generators, a `ParticlePosterior` for particles.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, posterior: Posterior, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        super().__init__(weight, normalizer)
        self.posterior = posterior

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        with eval_mode(self.posterior):
            slope: Tensor = self.posterior(diffused)
        return slope
