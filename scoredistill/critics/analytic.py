"""Critics in closed form: a point mass, a set of particles, a known distribution."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from scoredistill.cache import LastCallCache
from scoredistill.critics.critic import Critic
from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import MORE_NOISE, require_noise
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class DiracCritic(Critic):
    """q = delta_x, a point mass at each sample: its exact epsilon is the one that was injected,

        epsilon(x_t) = (x_t - alpha x) / sigma

    "DreamFusion: Text-to-3D using 2D Diffusion" (2022), arXiv:2209.14988.
    """

    def forward(self, diffused: Diffused) -> Prediction:
        return Prediction(diffused.x_t, diffused.t, diffused.schedule, epsilon=diffused.epsilon)


class ExactCritic(Critic):
    """q is a given distribution, represented by an exact teacher; for generators whose distribution is known.

    A `Distiller` replaces its schedule by the teacher's.

    Args:
        distribution: any teacher; if it has a closed form, an exact ratio can use it.
    """

    def __init__(self, distribution: Teacher) -> None:
        super().__init__()
        self.distribution = distribution

    def bind(self, teacher: Teacher) -> None:
        self.distribution = copy(self.distribution)
        self.distribution.schedule = teacher.schedule

    def forward(self, diffused: Diffused) -> Prediction:
        return self.distribution(diffused.x_t, diffused.t, diffused.condition)

    def log_prob(self, diffused: Diffused) -> Tensor:
        return self.distribution.log_prob(diffused.x_t, diffused.t, diffused.condition)


class ParticleCritic(Critic):
    """q = 1/n sum_i N(x_i, bandwidth^2 I), the exact mixture over the particles' renders from the same view.

        q_t(x_t) = 1/n sum_i N(x_t; alpha x_i, (sigma^2 + alpha^2 bandwidth^2) I)

    The particles are those of the batch, or the sample's `population` if there is one. With one particle and bandwidth
    0 it is the `DiracCritic`.

    Args:
        bandwidth: standard deviation of the kernel on clean samples, >= 0; 0: Diracs.
    """

    needs_population = True

    def __init__(self, bandwidth: float = 0.0) -> None:
        require(">= 0", bandwidth=bandwidth)
        super().__init__()
        self.bandwidth = bandwidth
        self._last_call = LastCallCache[MixturePosterior]()

    def forward(self, diffused: Diffused) -> Prediction:
        epsilon = self.posterior(diffused).epsilon.view_as(diffused.x_t)
        return Prediction(diffused.x_t, diffused.t, diffused.schedule, epsilon=epsilon)

    def log_prob(self, diffused: Diffused) -> Tensor:
        return self.posterior(diffused).log_prob

    def posterior(self, diffused: Diffused) -> MixturePosterior:
        """Exact epsilon, log-density and responsibilities p(i | x_t).

        The latest result is cached: an f-divergence uses score and density at the same x_t.

        Args:
            diffused: the diffused samples.
        """
        sample = diffused.sample
        particles = sample.x if sample.population is None else sample.population
        settings = (self.bandwidth, diffused.schedule)
        about = (diffused.x_t, diffused.t, sample, particles)
        return self._last_call.of(settings, about, lambda: self._posterior(diffused, particles))

    def _posterior(self, diffused: Diffused, particles: Tensor) -> MixturePosterior:
        x_t = diffused.x_t
        t = diffused.t
        schedule = diffused.schedule
        if self.bandwidth == 0:
            what = "the score of a ParticleCritic whose bandwidth is 0"
            require_noise(t, schedule, what, f"{MORE_NOISE}, or give it a bandwidth above 0")
        same_view = self._same_view(diffused, len(particles))
        log_weights = torch.zeros_like(same_view, dtype=x_t.dtype).where(same_view, -torch.inf).log_softmax(-1)
        means = particles.detach().flatten(1)
        covariance = Covariance(means.new_full((1, 1), self.bandwidth**2))
        alpha, sigma = schedule(t)
        return diffused_mixture(x_t.flatten(1), alpha, sigma, means, log_weights, covariance)

    def _same_view(self, diffused: Diffused, count: int) -> Tensor:
        """Mask of the particles that share each sample's view, (B, M)."""
        sample = diffused.sample
        device = diffused.x_t.device
        own = sample.views
        same_view = torch.ones(len(diffused.x_t), count, dtype=torch.bool, device=device)
        if own is None:
            return same_view
        view = own if sample.population is None else sample.population_view_index
        if view is None:
            raise ValueError("samples of several views or labels need a population whose views are known too")
        same_view = own[:, None].to(device) == view.to(device)
        if not bool(same_view.any(1).all()):
            raise ValueError("the population has no particle under the view or label of a sample")
        return same_view
