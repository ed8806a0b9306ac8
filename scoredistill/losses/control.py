"""Losses that choose or weigh the noise: a control variate, several noises with a reward, one fixed noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.time_weights import TimeWeight, UniformWeight
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.losses.distillation import SDS, GradientNormalizer, ScoreDistillation
from scoredistill.losses.inversion import START
from scoredistill.losses.objective import Gradient, Objective
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, right_pad_dims
from scoredistill.types.checks import require_shape, time_type


class SteinSD(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - mu c),    c = epsilon phi(x_t, t) - sigma_t grad phi(x_t, t)

    By Stein's identity E[c] = 0 for every scalar function phi of x_t, so that B = mu c changes the variance and not the
    mean. With phi = 1, mu = 1 is SDS and mu = 0 the teacher's epsilon alone. mu is fitted to the least variance,
    E[A . c] / E[c . c], by averages over the previous steps, so that it does not depend on the present noise.

    "SteinDreamer: Variance Reduction for Text-to-3D Score Distillation via Stein Identity" (2024), arXiv:2401.00604.
    The paper's phi compares rendered depth or normals with those that a network estimates from x_t.

    Args:
        phi: a module with phi(x_t, t), (B,), differentiable in x_t; None: 1.
        scale: mu, finite; None: fitted, 1 in the first step.
        decay: of the averages, in [0, 1).
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    moments: Tensor

    def __init__(
        self,
        phi: nn.Module | None = None,
        scale: float | None = None,
        decay: float = 0.99,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("finite", scale=scale)
        require("[0, 1)", decay=decay)
        super().__init__(weight, normalizer)
        self.phi = None if phi is None else phi.requires_grad_(False)
        self.scale, self.decay = scale, decay
        self.register_buffer("moments", torch.zeros(2, dtype=torch.float64))

    @property
    def mu(self) -> Tensor:
        """The scale of the control variate, a scalar."""
        if self.scale is not None:
            return self.moments.new_tensor(self.scale)
        cross, square = self.moments
        return torch.where(square > 0, cross / square, 1.0)

    def control_variate(self, diffused: Diffused) -> Tensor:
        """c, (B, *D)."""
        if self.phi is None:
            return diffused.epsilon
        with torch.enable_grad():
            x_t = diffused.x_t.detach().requires_grad_()
            phi = require_shape(self.phi(x_t, diffused.t), diffused.t.shape, f"phi of {type(self.phi).__name__}")
            (slope,) = torch.autograd.grad(phi.sum(), x_t)
        sigma, phi = (right_pad_dims(each, slope) for each in (diffused.sigma, phi.detach()))
        return diffused.epsilon * phi - sigma * slope

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return self.mu.to(diffused.x_t) * self.control_variate(diffused)

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        if self.scale is not None or gradient.target is None:
            return
        c, a = self.control_variate(diffused).double(), gradient.target.epsilon.double()
        new = diffused.shard.sum(torch.stack([(a * c).sum(), (c * c).sum()]))
        self.moments.copy_(self.decay * self.moments + (1 - self.decay) * new)


class RandomizedSJC(SDS):
    """g = w(t) mean_i (epsilon_teacher(alpha_t x + sigma_t epsilon_i; y) - epsilon_i)

    Perturb and average: the score of the teacher at x, blurred, estimated from n perturbed copies of x. In a variance
    exploding schedule, as in the paper, the mean is over (x - D(x + sigma epsilon_i)) / sigma. One noise is `SDS`. Each
    noise is one call of the teacher.

    "Score Jacobian Chaining: Lifting Pretrained 2D Diffusion Models for 3D Generation" (2022), arXiv:2212.00774.

    Args:
        noises: n, >= 1.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, noises: int = 1, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        require(">= 1", noises=noises)
        super().__init__(weight, normalizer)
        self.noises = noises

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        first = super().gradient(diffused, teacher, guidance)
        total = first.g
        for _ in range(self.noises - 1):
            noise = diffused.shard.noise_like(diffused.x_t, diffused.rng)
            total = total + super().gradient(diffused.at(diffused.t, noise), teacher, guidance).g
        return replace(first, g=total / self.noises)


class Reward(nn.Module, ABC):
    """A score of pictures, higher for better ones. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, pictures: Tensor, condition: Condition | None) -> Tensor:
        """The reward of each picture, (B,).

        Args:
            pictures: (B, *D) the teacher's clean predictions, decoded.
            condition: what the pictures should show, B rows, or None.
        """


class DensityReward(Reward):
    """log p_t(alpha_t x | y), the log-density of a teacher in closed form at a small noise level.

    Args:
        teacher: the exact teacher.
        t: noise time, in (0, 1).
    """

    def __init__(self, teacher: Teacher, t: float = 0.1) -> None:
        require("(0, 1)", t=t)
        super().__init__()
        self.teacher, self.t = teacher, t

    def forward(self, pictures: Tensor, condition: Condition | None) -> Tensor:
        t = torch.full((len(pictures),), self.t, dtype=time_type(pictures), device=pictures.device)
        x_t = right_pad_dims(self.teacher.schedule(t)[0], pictures).to(pictures) * pictures
        return self.teacher.log_prob(x_t, t, condition).to(pictures)


class RewardSDS(Objective):
    """g = sum_i weight_i g_i,    g_i the gradient at x_t of the i-th noise

    with weights from the reward of the teacher's clean prediction there:

        softmax    weight_i proportional to exp(reward_i / temperature); with a constant reward, the mean over noises
        best       the mean over the `best` highest rewards
        min_max    .9 times that mean, minus .1 times the mean over as many of the lowest

    The paper scores pictures that are denoised in 15 steps. Each noise is one call of the teacher.

    "RewardSDS: Aligning Score Distillation via Reward-Weighted Sampling" (2025), arXiv:2503.09601.

    Args:
        reward: the score of pictures.
        loss: the objective evaluated at each noise; None: `SDS`.
        noises: number of noises per sample, >= 1.
        weighting: softmax, best or min_max.
        best: number of highest (and lowest) rewards, >= 1, for best and min_max.
        temperature: of softmax, > 0.
    """

    def __init__(
        self,
        reward: Reward,
        loss: Objective | None = None,
        noises: int = 8,
        weighting: Literal["softmax", "best", "min_max"] = "min_max",
        best: int = 2,
        temperature: float = 1.0,
    ) -> None:
        require(">= 1", noises=noises, best=best)
        require("> 0", temperature=temperature)
        super().__init__()
        if weighting != "softmax" and best > noises:
            raise ValueError(f"RewardSDS: best: {best} of {noises} noises: lower best or raise noises")
        self.reward, self.loss = reward.requires_grad_(False), loss or SDS()
        self.noises = noises
        self.weighting = weighting
        self.best = best
        self.temperature = temperature

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        self.loss.bind(teacher, timesteps)

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        gradients, rewards = [], []
        for i in range(self.noises):
            noise = diffused.epsilon if i == 0 else diffused.shard.noise_like(diffused.x_t, diffused.rng)
            at = self.loss.place(diffused.at(diffused.t, noise))
            gradients.append(self.loss.gradient(at, teacher, guidance))
            rewards.append(self._reward(gradients[-1], diffused, teacher))
        values = torch.stack(rewards)
        weights = self.weights(values)
        pairs = [(right_pad_dims(w, gradient.g), gradient) for w, gradient in zip(weights, gradients, strict=True)]
        g = torch.stack([w * gradient.g for w, gradient in pairs]).sum(0)
        pictures = [right_pad_dims(w, each.picture) * each.picture for w, each in pairs if each.picture is not None]
        metrics = {"reward/mean": values.mean(), "reward/best": values.amax(0).mean()}
        return replace(
            gradients[0],
            g=g,
            picture=torch.stack(pictures).sum(0) if pictures else None,
            metrics={**gradients[0].metrics, **metrics},
        )

    def weights(self, rewards: Tensor) -> Tensor:
        """The weights of the noises, (N, B), from their rewards, (N, B)."""
        if self.weighting == "softmax":
            return (rewards / self.temperature).softmax(0)
        highest = torch.zeros_like(rewards).scatter(0, rewards.topk(self.best, 0).indices, 1 / self.best)
        if self.weighting == "best":
            return highest
        lowest = torch.zeros_like(rewards).scatter(0, (-rewards).topk(self.best, 0).indices, 1 / self.best)
        return 0.9 * highest - 0.1 * lowest

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        self.loss.observe(diffused, gradient)

    @torch.no_grad()
    def _reward(self, gradient: Gradient, diffused: Diffused, teacher: Teacher) -> Tensor:
        if gradient.target is None:
            raise ValueError(f"RewardSDS needs a loss that calls the teacher, not {type(self.loss).__name__}")
        reward = self.reward(teacher.decode(gradient.target.x0), diffused.condition)
        return require_shape(reward, diffused.t.shape, f"the reward of {type(self.reward).__name__}")


class Consistent3D(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(x_t'; y)),    t' = t - gap

    x_t has one fixed noise per particle, and x_t' is the next point of the teacher's ODE from it, one Euler step of the
    guided teacher away. The gradient pulls x to where the trajectory is straight. Two calls of the guided teacher.

    "Consistent3D: Towards Consistent High-Fidelity Text-to-3D Generation with Deterministic Sampling Prior" (2024),
    arXiv:2401.09050. Published with t' falling from .7 to .1 and a random gap in [.1, .3].

    Args:
        gap: t - t', in (0, 1).
        seed: seed of the fixed noises, in [0, 2^32).
        weight: w(t); None: `UniformWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        gap: float = 0.2,
        seed: int = 0,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("(0, 1)", gap=gap)
        require("[0, 2^32)", seed=seed)
        super().__init__(weight or UniformWeight(), normalizer)
        self.gap, self.seed = gap, seed

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        """The samples at t with the fixed noise of their particles; samples without a particle share one."""
        x, particle = diffused.x_t, diffused.sample.particle
        owners = [0] * len(x) if particle is None else particle.tolist()
        noises = {owner: self._noise(owner, x) for owner in set(owners)}
        return diffused.at(diffused.t, torch.stack([noises[owner] for owner in owners]))

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        assert diffused.target is not None
        t = (diffused.t - self.gap).clamp(min=START).minimum(diffused.t)
        return guidance(teacher, diffused.target.ddim(t), t, diffused.condition).epsilon

    def _noise(self, particle: int, x: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed((self.seed + 1_000_003 * particle) % 2**32)
        return torch.randn(x.shape[1:], generator=rng, dtype=x.dtype).to(x.device)
