"""The density ratio of a discriminator between the generator's samples and data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu, softplus

from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.networks.backbone import Backbone, FeatureLayer
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.sampling import sample as flow
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, Sample

AdversarialLoss = Literal["non_saturating", "hinge", "least_squares"]


class DiscriminatorRatio(DensityRatio, TrainedPart):
    """log r from a discriminator D(x_t, t, condition), trained beside the generator on data and its own samples:

        non_saturating   min E_p softplus(-D) + E_q softplus(D)      at its optimum D = log r
        least_squares    min E_p (D - 1)^2 + E_q D^2                 D = p / (p + q), log r = log(D / (1 - D))
        hinge            min E_p relu(1 - D) + E_q relu(1 + D)       D = sign(p - q): no ratio, for `WithGAN` alone

    D is a head on the bottleneck features of the frozen teacher, of the trained critic (whose network then learns from
    both errors), or of its own backbone. With several `depths` there is a head on the features at each: their losses
    are averaged, and D is their mean. With `timesteps` D is trained, and adds its term to a generator, at times and
    with noise of its own, which makes it a poor ratio at those of the objective.

    R1 adds gamma / 2 E_p ||grad D||^2, or its finite-difference form gamma / (2 step^2) E_p (D(x_t + step z) -
    D(x_t))^2, which needs no second derivative.

    "Which Training Methods for GANs do actually Converge?" (2018), arXiv:1801.04406;
    "One-step Diffusion Models with f-Divergence Distribution Matching" (2025), arXiv:2502.15681;
    several depths: "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation" (2024),
    arXiv:2403.12015.

    Args:
        features: teacher, critic, or a backbone.
        objective: non_saturating, least_squares or hinge.
        hidden: width of the head, >= 1.
        sigma_data: the data's standard deviation, by which its own backbone scales its input, > 0.
        clamp: largest |log r|, > 0.
        r1: gamma, >= 0; 0: no penalty.
        r1_step: step of the difference quotient, > 0; None: exact gradients.
        weight: of its training error, > 0.
        depths: rising indices of the backbone's `feature_layers`, negative ones from the bottleneck, -1,
            finite; or all.
        timesteps: distribution of the times at which D is evaluated and trained; None: those of the objective.
        teacher_steps: the real samples are the teacher's own, by its probability flow with this many Heun steps and
            under the samples' condition, >= 1; None: the batch's data.

    Raises:
        ValueError: if a number is out of its range, or there is no depth.
    """

    def __init__(
        self,
        features: Literal["teacher", "critic"] | Backbone = "teacher",
        objective: AdversarialLoss = "non_saturating",
        hidden: int = 128,
        sigma_data: float = 0.5,
        clamp: float = 10.0,
        r1: float = 0.0,
        r1_step: float | None = None,
        weight: float = 1.0,
        depths: Sequence[int] | Literal["all"] = (-1,),
        timesteps: TimestepSampler | None = None,
        teacher_steps: int | None = None,
    ) -> None:
        require(">= 1", teacher_steps=teacher_steps)
        require(">= 1", hidden=hidden)
        require("finite", depths=() if depths == "all" else depths)
        require("> 0", sigma_data=sigma_data, clamp=clamp, r1_step=r1_step, weight=weight)
        require(">= 0", r1=r1)
        super().__init__()
        if not depths:
            raise ValueError("a discriminator needs features: depths is empty")
        self.objective: AdversarialLoss = objective
        self.depths = depths if isinstance(depths, str) else tuple(depths)
        self.timesteps = timesteps
        self.teacher_steps = teacher_steps
        self.hidden = hidden
        self.clamp = clamp
        self.r1 = r1
        self.r1_step = r1_step
        self.weight = weight
        self.source = features if isinstance(features, str) else "own"
        self.own = None if isinstance(features, str) else Denoiser(features, sigma_data=sigma_data)
        self.head: FeatureHead | nn.ModuleList | None = None if self.own is None else self._head_on(self.own.network)
        self._critic: tuple[Critic, ...] = ()  # no submodule, since the loss registers it
        self._known: tuple[Tensor, Tensor] | None = None

    def bind(self, teacher: Teacher, critic: Critic | None) -> None:
        self._critic = () if critic is None else (critic,)
        if self.head is None:
            self.head = self._head_on(self._denoiser(teacher).network)

    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        if self._known is not None and self._known[0] is diffused.x_t:
            return self.log_ratio(self._known[1])
        with eval_mode(self, *self._critic):
            return self.log_ratio(self.logit(diffused, teacher))

    @contextmanager
    def with_logit(self, diffused: Diffused, logit: Tensor) -> Iterator[None]:
        """Inside the `with` block the ratio at these diffused samples comes from `logit`, without another call.

        Args:
            diffused: identified by the tensor x_t itself, not by its values.
            logit: D there, (B,), in evaluation mode and without gradient.
        """
        before = self._known
        self._known = (diffused.x_t, logit)
        try:
            yield
        finally:
            self._known = before

    def log_ratio(self, logit: Tensor) -> Tensor:
        """log r of D, (B,), clamped.

        Raises:
            ValueError: for a hinge objective.
        """
        if self.objective == "least_squares":
            share = logit.clamp(*torch.sigmoid(logit.new_tensor([-self.clamp, self.clamp])))
            return torch.logit(share)
        if self.objective == "hinge":
            raise ValueError("a hinge discriminator has no density ratio: use non_saturating or least_squares")
        return logit.clamp(-self.clamp, self.clamp)

    def logit(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """D, (B,), the mean of the heads, differentiable in x_t."""
        return self.logits(diffused, teacher).mean(1)

    def logits(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """The output of each head, (B, heads), differentiable in x_t; from one call of the network."""
        if self.head is None:
            raise ValueError("the discriminator has no head yet: put it into a Distiller")
        denoiser = self._denoiser(teacher)
        layers = [layer.module for layer in self._layers(denoiser.network)]
        found = denoiser.features_of(layers, diffused.x_t, diffused.t, diffused.condition, diffused.schedule)
        heads = self.head if isinstance(self.head, nn.ModuleList) else [self.head]
        return torch.stack([head(features) for head, features in zip(heads, found, strict=True)], 1)

    def at_own_times(self, diffused: Diffused) -> Diffused:
        """The same samples at times and with noise of the discriminator's own; unchanged without `timesteps`."""
        if self.timesteps is None:
            return diffused
        draw, schedule, rng = self.timesteps, diffused.schedule, diffused.rng
        t = diffused.shard.draw(lambda rows: draw(rows, schedule, diffused.progress, rng), len(diffused.t))
        return diffused.at(t.to(diffused.t), diffused.shard.noise_like(diffused.x_t, rng))

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """`weight` times `pair_error` with the batch's real samples, (B,).

        Args:
            diffused: the generator's diffused samples; `diffused.sample.data` are diffused to the same times.
            teacher: the model of p.

        Raises:
            ValueError: if the numbers of real and generated samples differ.
        """
        diffused = self.at_own_times(diffused)
        return self.weight * self.pair_error(diffused, self._real(diffused, teacher), teacher)

    def pair_error(self, fake: Diffused, real: Diffused, teacher: Teacher) -> Tensor:
        """The loss of each pair of a generated and a real sample, (B,).

        Args:
            fake: the generator's diffused samples.
            real: as many diffused real samples, at the same times.
            teacher: the model of p.
        """
        on_fake = self.logits(fake, teacher)
        real = replace(real, x_t=real.x_t.detach().requires_grad_(self.r1 > 0 and self.r1_step is None))
        on_real = self.logits(real, teacher)
        match self.objective:
            case "non_saturating":
                loss = softplus(-on_real) + softplus(on_fake)
            case "least_squares":
                loss = (on_real - 1).square() + on_fake.square()
            case _:
                loss = relu(1 - on_real) + relu(1 + on_fake)
        loss = loss.mean(1)
        return loss if self.r1 == 0 else loss + self._penalty(on_real.mean(1), real, teacher)

    def generator_error(self, logit: Tensor) -> Tensor:
        """The generator's adversarial loss from D at its samples, of any shape."""
        match self.objective:
            case "non_saturating":
                return -logsigmoid(logit)
            case "least_squares":
                return (logit - 1).square()
            case _:
                return -logit

    def _layers(self, network: Backbone) -> list[FeatureLayer]:
        """The layers whose outputs are used.

        Raises:
            ValueError: if the network has no such layer, or the depths do not rise.
        """
        if self.depths == (-1,):
            return [FeatureLayer(network.bottleneck, network.width, network.spatial)]
        layers = network.feature_layers
        if isinstance(self.depths, str):
            return list(layers)
        n = len(layers)
        index = [depth + n if depth < 0 else depth for depth in self.depths]
        if any(not 0 <= i < n for i in index) or any(a >= b for a, b in pairwise(index)):
            raise ValueError(f"depths must rise within {n} layers of {type(network).__name__}, got {list(self.depths)}")
        return [layers[i] for i in index]

    def _head_on(self, network: Backbone) -> FeatureHead | nn.ModuleList:
        heads = [FeatureHead(layer.width, self.hidden, layer.spatial) for layer in self._layers(network)]
        return heads[0] if len(heads) == 1 else nn.ModuleList(heads)

    def _real(self, fake: Diffused, teacher: Teacher) -> Diffused:
        """Real samples, diffused to the same times with independent noise."""
        sample, noise = fake.sample, lambda: fake.shard.noise_like(fake.x_t, fake.rng)
        if self.teacher_steps is not None:
            shape, condition = fake.x_t.shape, fake.condition
            z = noise()
            x = flow(teacher, len(z), shape[1:], condition, steps=self.teacher_steps, z=z, rng=fake.rng).to(fake.x_t)
            return Diffused.diffuse(Sample(x, condition), fake.t, noise(), fake.schedule)
        if sample.data is None:
            raise ValueError(
                "a discriminator needs real samples, but the batch has none: use a data module with data, or set "
                "teacher_steps"
            )
        if len(sample.data) != len(fake.t):
            raise ValueError(f"the batch has {len(fake.t)} generated samples and {len(sample.data)} real ones")
        condition = fake.condition if sample.data_label is None else Condition(label=sample.data_label)
        data = Sample(sample.data.to(fake.x_t), condition)
        return Diffused.diffuse(data, fake.t, noise(), fake.schedule)

    def _penalty(self, on_real: Tensor, real: Diffused, teacher: Teacher) -> Tensor:
        if self.r1_step is None:
            (slope,) = torch.autograd.grad(on_real.sum(), real.x_t, create_graph=True)
            return 0.5 * self.r1 * slope.flatten(1).square().sum(1)
        step = self.r1_step * real.shard.noise_like(real.x_t, real.rng)
        moved = self.logit(replace(real, x_t=real.x_t + step), teacher)
        return 0.5 * self.r1 * ((moved - on_real) / self.r1_step).square()

    def _denoiser(self, teacher: Teacher) -> Denoiser:
        if self.own is not None:
            return self.own
        if self.source == "teacher":
            return teacher.denoiser_for("the discriminator")
        if not self._critic:
            raise ValueError("the discriminator uses the critic's features, but the loss has no critic")
        return self._critic[0].denoiser_for("the discriminator")


class FeatureHead(nn.Module):
    """One number per sample from features, averaged over their positions.

    A map (B, width, H, W) is processed by two convolutions with stride 2, which are sensitive to positions; vectors
    (B, width) and tokens (B, L, width) by two linear layers.

    Args:
        width: channels of the features, >= 1.
        hidden: channels of the hidden layers, >= 1.
        spatial: whether the features are a map.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(self, width: int, hidden: int, spatial: bool) -> None:
        require(">= 1", width=width, hidden=hidden)
        super().__init__()
        self.spatial = spatial
        if spatial:
            self.first: nn.Module = nn.Conv2d(width, hidden, 3, stride=2, padding=1)
            self.second: nn.Module = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        else:
            self.first = nn.Linear(width, hidden)
            self.second = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features to (B,)."""
        hidden = nn.functional.silu(self.second(nn.functional.silu(self.first(features))))
        if self.spatial:
            hidden = hidden.flatten(2).mean(2)
        elif hidden.ndim == 3:
            hidden = hidden.mean(1)
        return self.out(hidden)[:, 0]
