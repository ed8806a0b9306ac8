"""Objectives that use the steps of a few-step student: trajectory distribution matching and SenseFlow.

Particles have no steps (`Sample.segment`); what uses them is then left out.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.guidance import CFG, Guidance
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.time_weights import TimeWeight, UniformWeight
from scoredistill.losses.adversarial import WithGAN
from scoredistill.losses.distillation import VSD, DMDNormalizer, GradientNormalizer
from scoredistill.losses.objective import Gradient
from scoredistill.networks.denoiser import Denoiser
from scoredistill.ranges import require
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, Segment, right_pad_dims


class TDM(VSD):
    """Trajectory distribution matching: reverse KL between the student's state x_s and the teacher within one step:

        x_tau = (alpha_tau / alpha_s) x_s + sqrt(sigma_tau^2 - (alpha_tau sigma_s / alpha_s)^2) z,   s < tau < t
        g     = (d x_s / d x) g_s / sqrt(|g_s|^2 + c^2),   g_s = w(tau) (epsilon_teacher - epsilon_critic)(x_tau)

    The step goes from t to s by the ODE, x_s = alpha_s x + sigma_s epsilon with the noise that x leaves in its input,
    so that d x_s / d x = alpha_s - sigma_s alpha_t / sigma_t. The distiller's t is the position of tau in the step, 0
    at s and 1 at t: steps share one critic, which is trained on the same x_tau. The norm is that of the paper's
    pseudo-Huber loss, c = .00054 sqrt(D). Without steps, for particles, s = 0 and t = 1: VSD with this norm.

    Use it with `OneStepUNet(sampling="ode")`. Calls per step: teacher 1, critic 1.

    "Learning Few-Step Diffusion Models by Trajectory Distribution Matching" (2025), arXiv:2503.06674. There the
    critic's error is weighted by importance; here by its parameterization alone.

    Args:
        critic: the model of the student's score.
        huber: c / sqrt(D), > 0.
        weight: w(tau); None: `UniformWeight`.
    """

    def __init__(self, critic: Critic, huber: float = 0.00054, weight: TimeWeight | None = None) -> None:
        require("> 0", huber=huber)
        super().__init__(critic, weight or UniformWeight())
        self.huber = huber

    def place(self, diffused: Diffused) -> Diffused:
        """x_tau, with the noise whose expectation given x_tau is the score of the diffused states."""
        segment = diffused.segment
        if segment is None:
            return diffused
        x, z = diffused.sample.x.detach(), diffused.epsilon
        tau = torch.lerp(segment.next_t.to(diffused.t), segment.t.to(diffused.t), diffused.t)
        (alpha_s, sigma_s), (alpha, sigma) = noise_at(segment.next_t, x, diffused), noise_at(tau, x, diffused)
        x_s = Prediction(segment.x_t, segment.t, diffused.schedule, x0=x).ddim(segment.next_t)
        kept = alpha * sigma_s / alpha_s
        std = (sigma**2 - kept**2).clamp(min=0).sqrt()
        # The noise per standard deviation: sigma / std, 1 where x_s is clean, and bounded where tau meets s.
        ratio = torch.where(sigma_s == 0, 1.0, sigma / std.maximum(FLOOR * sigma).clamp(min=torch.finfo(x.dtype).tiny))
        state = x_s / alpha_s - sigma_s / alpha_s * kept / sigma.clamp(min=torch.finfo(x.dtype).tiny) * ratio * z
        x_t = (alpha / alpha_s * x_s + std * z).to(x.dtype)
        at_end = diffused.schedule.touches_end(tau)
        return replace(
            diffused, x_t=x_t, t=tau, epsilon=(ratio * z).to(x.dtype), state=state.to(x.dtype), at_end=at_end
        )

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        found = super().gradient(diffused, teacher, guidance)
        squared = found.g.flatten(1).square().sum(1)
        c_squared = self.huber**2 * found.g[0].numel()
        factor = (squared + c_squared).rsqrt()
        segment = diffused.segment
        factor = factor if segment is None else factor * state_slope(segment, diffused)
        return found.times(factor)


FLOOR = 1e-3
"""Smallest share of new noise in x_tau, for its target."""


class SenseFlow(WithGAN):
    """g = (epsilon_teacher - epsilon_critic) / norm + lambda_isg g_isg + lambda_gan n (1 - sigma)^2 alpha grad l(D)

    with n dimensions: DMD2 with two additions. Implicit distribution alignment: after each generator step, the
    critic's parameters phi follow the student's theta,

        phi <- lambda phi + (1 - lambda) theta.

    Intra-segment guidance: the student's step from t to s is drawn to one through a random time m between them, from t
    to m by the guided teacher and from m to s by the student, both without gradient:

        g_isg = (d x_s / d x) e / sqrt(e^2 + c^2) elementwise,   e = x_s - x_s(through m),   c = .001

    Student and critic must have the same network. Without steps, for particles, both are left out, and the factor
    (1 - sigma)^2, at the student's time and in a flow's units, is 1.

    Calls per step: teacher 2, critic 1, student 1 without gradient, and the discriminator's features once; for
    particles teacher 1.

    "SenseFlow: Scaling Distribution Matching for Flow-based Text-to-Image Distillation" (2025), arXiv:2506.00523. There
    the discriminator is on frozen vision models of decoded pictures, and the guidance of each step is drawn, U(2, 8)
    and U(2, 4).

    Args:
        critic: the model of the student's score.
        discriminator: D; None: hinge on the teacher's features at all depths.
        gan_weight: lambda_gan, >= 0.
        segment_weight: lambda_isg, >= 0; 0: without intra-segment guidance.
        critic_decay: lambda of the alignment, in [0, 1]; 1: without it.
        margin: smallest distance of m from t and s, in [0, 0.5]; at most half of the step.
        weight: w(t); None: `UniformWeight`.
        normalizer: of the first term; None: `DMDNormalizer`.
    """

    def __init__(
        self,
        critic: Critic,
        discriminator: DiscriminatorRatio | None = None,
        gan_weight: float = 0.1,
        segment_weight: float = 0.5,
        critic_decay: float = 0.98,
        margin: float = 0.05,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require(">= 0", segment_weight=segment_weight)
        require("[0, 1]", critic_decay=critic_decay)
        require("[0, 0.5]", margin=margin)
        matching = VSD(critic, weight or UniformWeight(), normalizer or DMDNormalizer())
        super().__init__(matching, discriminator or DiscriminatorRatio("teacher", "hinge", depths="all"), gan_weight)
        self.segment_weight, self.critic_decay, self.margin = segment_weight, critic_decay, margin

    def scale(self, diffused: Diffused) -> float | Tensor:
        """n (1 - sigma)^2, (B,), with sigma the flow's at the signal-to-noise ratio of the student's time."""
        dimensions, segment = float(diffused.x_t[0].numel()), diffused.segment
        if segment is None:
            return dimensions
        alpha, sigma = diffused.schedule(segment.t.to(diffused.t))
        return dimensions * (alpha / (alpha + sigma)) ** 2

    def gradient(self, diffused: Diffused, teacher: Teacher, guidance: Guidance | None = None) -> Gradient:
        found, segment = super().gradient(diffused, teacher, guidance), diffused.segment
        if segment is None or self.segment_weight == 0:
            return found
        term, distance = self.toward_middle(segment, diffused, teacher, guidance or CFG())
        metrics = {"segment/distance": distance, "segment/norm": term.flatten(1).norm(dim=1).mean()}
        return found.plus(self.segment_weight * term, metrics)

    @torch.no_grad()
    def toward_middle(
        self, segment: Segment, diffused: Diffused, teacher: Teacher, guidance: Guidance
    ) -> tuple[Tensor, Tensor]:
        """g_isg, (B, *D), and the mean absolute error e."""
        t, s, condition = segment.t.to(diffused.t), segment.next_t.to(diffused.t), diffused.condition
        margin = ((t - s) / 2).clamp(max=self.margin)
        u = diffused.shard.draw(lambda rows: torch.rand(rows, generator=diffused.rng), len(t)).to(t)
        m = torch.lerp(s + margin, t - margin, u)
        x_m = guidance(teacher, segment.x_t, t, condition).ddim(m)
        through = segment.student(x_m, m, condition, diffused.schedule).ddim(s)
        direct = Prediction(segment.x_t, t, diffused.schedule, x0=diffused.sample.x.detach()).ddim(s)
        e = direct - through
        term = right_pad_dims(state_slope(segment, diffused), e) * e * (e.square() + HUBER**2).rsqrt()
        return term, e.abs().mean()

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        super().observe(diffused, gradient)
        segment = diffused.segment
        if segment is not None and self.critic_decay < 1 and self.critic is not None:
            follow(self.critic.denoiser_for("SenseFlow"), segment.student, self.critic_decay)


HUBER = 1e-3
"""c of the pseudo-Huber distance of intra-segment guidance."""


def noise_at(t: Tensor, like: Tensor, diffused: Diffused) -> tuple[Tensor, Tensor]:
    """alpha and sigma at (B,) times, to multiply (B, *D); 1 and 0 at t = 0, where a step ends with the clean sample."""
    alpha, sigma = diffused.schedule(t)
    clean = t == 0
    return right_pad_dims(torch.where(clean, 1.0, alpha), like), right_pad_dims(torch.where(clean, 0.0, sigma), like)


def state_slope(segment: Segment, diffused: Diffused) -> Tensor:
    """d x_s / d x = alpha_s - sigma_s alpha_t / sigma_t of the deterministic step, (B,)."""
    alpha, sigma = diffused.schedule(segment.t)
    alpha_s, sigma_s = noise_at(segment.next_t, segment.t, diffused)
    return alpha_s - sigma_s * alpha / sigma


@torch.no_grad()
def follow(critic: Denoiser, student: Denoiser, decay: float) -> None:
    """phi <- decay phi + (1 - decay) theta for each trained parameter of the student.

    Raises:
        ValueError: if the critic's network is another one.
    """
    own = dict(critic.named_parameters())
    for name, theta in student.named_parameters():
        if not theta.requires_grad:
            continue
        phi = own.get(name)
        if phi is None or phi.shape != theta.shape:
            raise ValueError(
                f"SenseFlow: the critic has no {name} of shape {tuple(theta.shape)}, as the student has: give both the "
                "same network, or set critic_decay to 1"
            )
        phi.lerp_(theta, 1 - decay)
