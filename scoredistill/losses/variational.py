"""Variants of VSD that change the critic: mixed, pushed away from the teacher, one step ahead, or a manifold's bias."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.critics.lora import LoRACritic
from scoredistill.critics.trained import TrainedCritic
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.schedule import MORE_NOISE, require_noise
from scoredistill.diffusion.time_weights import TimeWeight, UniformWeight
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.losses.distillation import VSD, GradientNormalizer, ScoreDistillation
from scoredistill.losses.inversion import unconditional
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.lora import LoRA
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused, Sample, right_pad_dims
from scoredistill.types.checks import time_type


class DiffInstruct(VSD):
    """g = epsilon_teacher - epsilon_critic: `VSD` with w = 1, for one-step generators.

    "Diff-Instruct: A Universal Approach for Transferring Knowledge From Pre-trained Diffusion Models" (2023),
    arXiv:2305.18455.

    Args:
        critic: the model of the generator's score.
        weight: w(t); None: `UniformWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, critic: Critic, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        super().__init__(critic, weight or UniformWeight(), normalizer)


class SwiftBrush(VSD):
    """`VSD` with a `LoRACritic` of rank 64, for a one-step text-to-image student that needs prompts and no pictures.

    Published with guidance 4.5 and a student that starts as the teacher.

    "SwiftBrush: One-Step Text-to-Image Diffusion Model with Variational Score Distillation" (2023), arXiv:2312.05239.

    Args:
        critic: the model of the generator's score; None: a `LoRACritic` of rank 64 and scale 108.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        critic: Critic | None = None,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        super().__init__(critic or LoRACritic(LoRA(rank=64, scale=108)), weight, normalizer)


class ESD(VSD):
    """B = lambda epsilon_critic(x_t; no camera) + (1 - lambda) epsilon_critic(x_t; camera)

    It adds lambda times the entropy of the distribution of all views to VSD's objective, against views that all show
    the front. lambda = 0 is `VSD`. A trained critic must know samples without a camera, as `LoRACritic` does by
    `camera_dropout`. Calls the critic twice.

    "Taming Mode Collapse in Score Distillation for Text-to-3D Generation" (2023), arXiv:2401.00909.

    Args:
        critic: the model of the generator's score.
        entropy: lambda, in [0, 1].
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        critic: Critic,
        entropy: float = 0.5,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("[0, 1]", entropy=entropy)
        super().__init__(critic, weight, normalizer)
        self.entropy = entropy

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        if self.entropy == 0:
            return super().baseline(diffused, teacher, guidance)
        sample, condition = diffused.sample, diffused.condition
        anywhere = None if condition is None else replace(condition, camera=None)
        pooled = replace(sample, condition=anywhere, view_index=None, population_view_index=None)
        marginal = super().baseline(replace(diffused, sample=pooled), teacher, guidance)
        if self.entropy == 1:
            return marginal
        return self.entropy * marginal + (1 - self.entropy) * super().baseline(diffused, teacher, guidance)


class ASD(VSD):
    """`VSD` whose critic also minimizes gamma |epsilon_critic(x_t) - epsilon_teacher(x_t; y)|^2,   gamma in (-1, 0]

    The teacher's own clean prediction, diffused by its own noise, is x_t again; a discriminator of scores takes it for
    real data and so pushes the critic away from it. With the ideal critic, g is `VSD` / (1 + gamma).

    "Adversarial Score Distillation: When score distillation meets GAN" (2023), arXiv:2312.00739.

    Args:
        critic: a trained model of the generator's score.
        gamma: weight of the push, in (-1, 0]; 0: VSD.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        critic: TrainedCritic,
        gamma: float = -0.75,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("(-1, 0]", gamma=gamma)
        super().__init__(critic, weight, normalizer)
        self.push = TeacherError(critic, gamma) if gamma else None


class TeacherError(TrainedPart):
    """gamma times a critic's error against the teacher's prediction in place of the samples' noise.

    Args:
        critic: the critic that is trained.
        gamma: weight of the error, finite; negative values push the critic away from the teacher.
    """

    def __init__(self, critic: TrainedCritic, gamma: float) -> None:
        require("finite", gamma=gamma)
        super().__init__()
        self.critic, self.gamma = critic, gamma

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        with torch.no_grad():
            (real,) = teacher.predict_many(diffused.x_t, diffused.t, [diffused.condition])
        target = replace(diffused, sample=replace(diffused.sample, x=real.x0), epsilon=real.epsilon)
        return self.gamma * self.critic.error(self.critic(diffused), target)


class LookaheadVSD(VSD):
    """B = epsilon_phi(x_t) + J_phi(x_t) (phi' - phi),    phi' = phi - eta grad_phi L(phi)

    The critic after one more gradient step on the present samples, to first order. L is the critic's training error at
    new times and noise, averaged over the batch. Costs one call with its backward pass and one with two of the
    critic.

    "Advancing Text-to-3D Generation with Linearized Lookahead Variational Score Distillation" (2025), arXiv:2507.09748.

    Args:
        critic: a trained model of the generator's score.
        eta: size of the step, >= 0; 0: `VSD`.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    critic: TrainedCritic

    def __init__(
        self,
        critic: TrainedCritic,
        eta: float = 0.01,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require(">= 0", eta=eta)
        super().__init__(critic, weight, normalizer)
        self.eta = eta
        self._timesteps: TimestepSampler | None = None

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        super().bind(teacher, timesteps)
        self._timesteps = timesteps

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        now = super().baseline(diffused, teacher, guidance)
        if self.eta == 0:
            return now
        trained = [p for p in self.critic.parameters() if p.requires_grad]
        step = self._step(trained, diffused, teacher)
        # J (phi' - phi) by two reverse derivatives, which more layers support than a forward one.
        with torch.enable_grad(), eval_mode(self.critic), sdpa_kernel(SDPBackend.MATH):
            epsilon = self.critic(diffused).epsilon
            u = torch.zeros_like(epsilon, requires_grad=True)
            slopes = torch.autograd.grad(epsilon, trained, u, create_graph=True, materialize_grads=True)
            (ahead,) = torch.autograd.grad(slopes, u, step)
        return now + ahead

    def _step(self, trained: list[nn.Parameter], diffused: Diffused, teacher: Teacher) -> list[Tensor]:
        """phi' - phi."""
        if self._timesteps is None:
            raise ValueError("LookaheadVSD has no timesteps yet: put it into a Distiller")
        x = diffused.sample.x
        shard = diffused.shard
        progress = diffused.progress
        rng = diffused.rng
        timesteps, schedule = self._timesteps, diffused.schedule
        t = shard.draw(lambda rows: timesteps(rows, schedule, progress, rng), len(x)).to(time_type(x))
        fresh = diffused.at(t.to(x.device), shard.noise_like(x, rng))
        with torch.enable_grad():
            error = self.critic.training_error(fresh, teacher).mean()
            slopes = torch.autograd.grad(error, trained, materialize_grads=True)
        return [-self.eta * shard.sum(slope) / shard.parts for slope in slopes]


class LearnedManifold(ScoreDistillation):
    """B = (x_t - alpha_t b(x, t)) / sigma_t

    with b a small network that learns which clean prediction the teacher makes, on average, of a real sample x diffused
    to t: its blur at large t. SDS has b(x, t) = x and so takes this blur for a direction toward the data. In terms of
    clean samples, g = w(t) (alpha / sigma) (b(x, t) - x0_teacher(x_t)) without guidance.

    b is trained on the batch's real samples, or on the teacher's clean predictions if there are none; the paper trains
    it beforehand on photographs.

    "Score Distillation Sampling with Learned Manifold Corrective" (2024), arXiv:2401.05293. The paper's code is not
    public; inputs and targets of b are our reading of it.

    Args:
        network: the backbone of b(x, t) - x.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, network: Backbone, weight: TimeWeight | None = None, normalizer: GradientNormalizer | None = None
    ) -> None:
        super().__init__(weight, normalizer)
        self.bias = DenoisingBias(network)

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        require_noise(diffused.t, diffused.schedule, "LearnedManifold", MORE_NOISE)
        alpha, sigma = (right_pad_dims(each, diffused.x_t) for each in (diffused.alpha, diffused.sigma))
        with eval_mode(self.bias):
            b = self.bias(diffused.sample.x.detach(), diffused)
        return (diffused.x_t - alpha * b) / sigma


class DenoisingBias(TrainedPart):
    """b(x, t) = x + network(x, log-SNR), trained by |b(x, t) - x0_teacher(x_t)|^2 with the unconditional teacher.

    Args:
        network: the backbone.
    """

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network: nn.Module = network

    def forward(self, x: Tensor, diffused: Diffused) -> Tensor:
        """b(x, t), (B, *D), at the diffused samples' times."""
        return x + self.network(x, diffused.schedule.log_snr(diffused.t), None).to(x.dtype)

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        condition = unconditional(diffused.condition)
        with torch.no_grad():
            real = self._real(diffused, teacher)
            at = Diffused.diffuse(Sample(real), diffused.t, diffused.epsilon, diffused.schedule)
            x0 = teacher.predict_many(at.x_t, at.t, [condition])[0].x0
        return (self(real, diffused) - x0).square().flatten(1).mean(1)

    @staticmethod
    def _real(diffused: Diffused, teacher: Teacher) -> Tensor:
        data = diffused.sample.data
        if data is None or len(data) != len(diffused.t):
            return teacher.predict_many(diffused.x_t, diffused.t, [diffused.condition])[0].x0
        return data.to(diffused.x_t)
