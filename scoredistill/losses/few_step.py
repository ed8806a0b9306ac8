"""Distribution matching for students of one or a few steps: with pairs, an adversarial term, or decoupled guidance.

Particles have no pairs (`Sample.target`); the terms that use them are then left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance, predict_distinct
from scoredistill.diffusion.time_weights import TimeWeight, UniformWeight
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.losses.adversarial import WithGAN
from scoredistill.losses.distillation import VSD, DMDNormalizer, GradientNormalizer, require_finite_gradient
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.ranges import require
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, right_pad_dims
from scoredistill.types.checks import require_shape


class Regression(Objective):
    """g = D grad_x d(x, y), with y the sample that belongs to the generator's noise and D the number of dimensions.

    d is the mean squared error, so that g = 2 (x - y), or a given distance. With y the teacher's own samples it
    pretrains a student (knowledge distillation). It needs pairs, from `TeacherPairs` for example, and calls neither
    teacher nor critic.

    Args:
        distance: a module of d(x, y), (B,), LPIPS for example, which is frozen; None: the mean squared error.
    """

    def __init__(self, distance: nn.Module | None = None) -> None:
        super().__init__()
        self.distance = None if distance is None else distance.requires_grad_(False).eval()

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        """The gradient of the distance.

        Raises:
            ValueError: if the samples have no targets.
        """
        if diffused.sample.target is None:
            raise ValueError("Regression needs pairs of noise and sample and a generator from noise: use TeacherPairs")
        g, distance = self.of_pairs(diffused, diffused.sample.target)
        ones, metrics = torch.ones_like(diffused.t), {"regression/distance": distance.mean()}
        return Gradient(g, diffused, None, None, Reweighting(ones), ones, metrics=metrics)

    def of_pairs(self, diffused: Diffused, target: Tensor) -> tuple[Tensor, Tensor]:
        """D grad_x d(x, y), (B, *D), and d, (B,)."""
        with torch.enable_grad():
            x = diffused.sample.x.detach().requires_grad_()
            y = require_shape(target.to(x), x.shape, "the batch's target")
            distance = (x - y).square().flatten(1).mean(1) if self.distance is None else self.distance(x, y)
            distance = require_shape(distance, diffused.t.shape, "the distance")
            (slope,) = torch.autograd.grad(distance.sum(), x)
        return x[0].numel() * slope, distance.detach()


class DMD(VSD):
    """g = w(t) (epsilon_teacher - epsilon_critic) / norm + lambda D grad_x d(x, y): reverse KL and paired regression

    with `DMDNormalizer` and the second term of `Regression`, where y is the teacher's sample from the same noise; D
    makes up for the paper's first term, which is a mean over the D dimensions. Samples without y, in a batch without
    pairs or of particles, have the first term alone.

    Calls per step: teacher 1, critic 1.

    "One-step Diffusion with Distribution Matching Distillation" (2023), arXiv:2311.18828.

    Args:
        critic: the model of the generator's score.
        regression_weight: lambda, >= 0; .25 is the paper's with LPIPS.
        distance: a module of d(x, y), (B,), LPIPS for example, which is frozen; None: the mean squared error.
        weight: w(t); None: `UniformWeight`.
        normalizer: of the first term; None: `DMDNormalizer`.
    """

    def __init__(
        self,
        critic: Critic,
        regression_weight: float = 0.25,
        distance: nn.Module | None = None,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require(">= 0", regression_weight=regression_weight)
        super().__init__(critic, weight or UniformWeight(), normalizer or DMDNormalizer())
        self.regression_weight, self.regression = regression_weight, Regression(distance)

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        matching = super().gradient(diffused, teacher, guidance)
        target = diffused.sample.target
        if target is None or self.regression_weight == 0:
            return matching
        term, distance = self.regression.of_pairs(diffused, target)
        metrics = {"regression/distance": distance.mean()}
        return matching.plus(self.regression_weight * term, metrics)


class DMD2(WithGAN):
    """g = (epsilon_teacher - epsilon_critic) / norm + lambda D alpha grad softplus(-D_phi(x_t)), D dimensions

    `WithGAN` over `VSD` with `DMDNormalizer`, and a discriminator D_phi on the features of the critic, which learn from
    its loss as well. The factor D makes up for the paper's first term, which is a mean over the D dimensions. There is
    no regression; five critic steps per generator step (`UpdatePlan`), and inputs of later steps by backward
    simulation (`OneStepUNet`).

    Calls per step: teacher 1, critic 1, and the critic's features once.

    "Improved Distribution Matching Distillation for Fast Image Synthesis" (2024), arXiv:2405.14867.

    Args:
        critic: the model of the generator's score, a trained network.
        discriminator: D_phi; None: non-saturating on the critic's features, its error with the weight .01.
        gan_weight: lambda, >= 0; .003 is published for ImageNet, .005 for SDXL, .001 for Stable Diffusion 1.5.
        weight: w(t); None: `UniformWeight`.
        normalizer: of the first term; None: `DMDNormalizer`.
    """

    def __init__(
        self,
        critic: Critic,
        discriminator: DiscriminatorRatio | None = None,
        gan_weight: float = 3e-3,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        matching = VSD(critic, weight or UniformWeight(), normalizer or DMDNormalizer())
        super().__init__(matching, discriminator or DiscriminatorRatio("critic", weight=0.01), gan_weight)

    def scale(self, diffused: Diffused) -> float | Tensor:
        """The number of a sample's dimensions."""
        return float(diffused.x_t[0].numel())


class DecoupledDMD(VSD):
    """g = w(t) (A(x_t; y) - B(x_t)) + w(t') (A_guided(x_t'; y) - A(x_t'; y))

    The second term is that of guidance, (s - 1) (A(x_t'; y) - A(x_t')) for `CFG`: in the paper it drives the student,
    and the first one, without guidance, keeps it from degenerating. x_t' has its own noise, and t' = t_student u with u
    from `timesteps`, where t_student is the time of the student's step: less noise than the student has seen. It is 1
    for one-step students at t = 1 and for particles. A normalizer rescales each term by its own prediction.

    Calls per step: teacher 2, critic 1.

    "Decoupled DMD: CFG Augmentation as the Spear, Distribution Matching as the Shield" (2025), arXiv:2511.22677.
    There t is uniform, and t' uniform below t_student.

    Args:
        critic: the model of the generator's score.
        timesteps: distribution of u, `UniformTimesteps` for the paper's; None: t' and its noise are those of the first
            term, which is VSD under guidance.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient, `DMDNormalizer` for example; None: no rescaling.
    """

    def __init__(
        self,
        critic: Critic,
        timesteps: TimestepSampler | None = None,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        super().__init__(critic, weight, normalizer)
        self.timesteps = timesteps

    @torch.no_grad()
    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        matching = super().gradient(diffused, teacher, CFG())
        at, guidance = self.elsewhere(diffused), guidance or CFG()
        conditions = guidance.conditions(at.condition, teacher, len(at.t))
        *branches, plain = predict_distinct(teacher, at.x_t, at.t, [*conditions, at.condition])
        guided = guidance.combine(branches, at.condition)
        w = self.weight(at.t, at.schedule)
        factor = w if self.normalizer is None else w * self.normalizer(at, guided)
        term = right_pad_dims(factor, at.x_t) * (guided.epsilon - plain.epsilon)
        if at.at_end:
            require_finite_gradient(term, at)
        return matching.plus(term, {"guidance/norm": term.flatten(1).norm(dim=1).mean()})

    def elsewhere(self, diffused: Diffused) -> Diffused:
        """The samples at t' with their own noise."""
        if self.timesteps is None:
            return diffused
        draw, shard, rng = self.timesteps, diffused.shard, diffused.rng
        u = shard.draw(lambda rows: draw(rows, diffused.schedule, diffused.progress, rng), len(diffused.t))
        segment = diffused.segment
        below = u.to(diffused.t) if segment is None else segment.t.to(diffused.t) * u.to(diffused.t)
        return diffused.at(below, shard.noise_like(diffused.x_t, rng))
