"""One step of SDS or VSD on a text-to-image model in plain PyTorch: in a straight line, and as threestudio composes it.

The networks and the NeRF are those of the package's step; nothing else of the package is used.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from sd_networks import BETAS
from step_meter import Meter
from torch import Tensor, nn

from scoredistill.generators.nerf import NeRF
from scoredistill.types import Batch

GUIDANCE = 7.5
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
STEPS = 1000


def adapted(unet: Any) -> Any:
    """The critic: the UNet's weights, with adapters and an embedding of the camera.

    Args:
        unet: UNet2DConditionModel, frozen.
    """
    from peft import LoraConfig, inject_adapter_in_model

    critic = deepcopy(unet, {id(value): value for value in chain(unet.parameters(), unet.buffers())})
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS), critic)
    for weight in critic.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
    width = critic.time_embedding.linear_2.out_features
    critic.class_embedding = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
    critic.class_embedding.to(critic.device)
    for weight in critic.class_embedding[2].parameters():
        nn.init.zeros_(weight)
    return critic


@dataclass(frozen=True)
class Networks:
    """The networks of a step.

    Args:
        unet: UNet2DConditionModel, which predicts the noise.
        vae: AutoencoderKL.
        texts: (2, L, E) embeddings of the prompt and of the empty text.
        critic: from `adapted`; None: SDS.
    """

    unet: Any
    vae: Any
    texts: Tensor
    critic: Any = None

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents."""
        mean = self.vae.encode(pictures.to(self.vae.dtype)).latent_dist.mean
        return self.vae.config.scaling_factor * mean.to(pictures.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures."""
        return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample

    def guided(self, x_t: Tensor, index: Tensor) -> Tensor:
        """The guided teacher's noise, both branches in one call."""
        text = self.texts.repeat_interleave(len(x_t), 0)
        cond, uncond = self._ask(self.unet, x_t.repeat(2, 1, 1, 1), index.repeat(2), text).chunk(2)
        return uncond + GUIDANCE * (cond - uncond)

    def estimate(self, x_t: Tensor, index: Tensor, pose: Tensor) -> Tensor:
        """The critic's noise, conditioned on the prompt and the cameras, (B, 16)."""
        text = self.texts[:1].expand(len(x_t), -1, -1)
        return self._ask(self.critic, x_t, index, text, pose)

    def _ask(self, network: Any, x_t: Tensor, index: Tensor, text: Tensor, *pose: Tensor) -> Tensor:
        dtype = self.unet.dtype
        return network(x_t.to(dtype), index, text.to(dtype), *pose).sample.to(x_t.dtype)


class PlainLoop:
    """A training loop without a toolkit, with its particles and optimizers.

    Args:
        networks: of the step.
        nerf: the particles.
        batches: from a step's number to its cameras.
    """

    def __init__(self, networks: Networks, nerf: NeRF, batches: Callable[[int], Batch]) -> None:
        self.networks, self.nerf, self.batches = networks, nerf, batches
        self.rng, self.steps = torch.Generator().manual_seed(0), 0
        self.particles = torch.optim.Adam(nerf.parameters(), lr=1e-3)
        self.alphas = alphas_cumprod().to(networks.texts)
        trained = [] if networks.critic is None else networks.critic.parameters()
        adapters = [weight for weight in trained if weight.requires_grad]
        self.adapters = torch.optim.AdamW(adapters, lr=1e-4) if adapters else None

    def straight_line(self, meter: Meter) -> None:
        """The minimum of a step."""
        latents, pose = self._latents(meter)
        x_t, index, epsilon = self._diffused(latents)
        with meter("teacher"), torch.no_grad():
            target = self.networks.guided(x_t, index)
        if self.adapters is None:
            return self._update_particles(latents, self._weight(index) * (target - epsilon), meter)
        with meter("critic"):
            predicted = self.networks.estimate(x_t, index, pose)
        self._update_particles(latents, self._weight(index) * (target - predicted.detach()), meter)
        return self._update_critic(predicted, epsilon, meter)

    def as_threestudio(self, meter: Meter) -> None:
        """The step with an unused decoding, an unconditional pass of the critic, which cancels at its guidance of 1,
        and a separate pass for its training.
        """
        networks = self.networks
        latents, pose = self._latents(meter)
        x_t, index, baseline = self._diffused(latents)
        with meter("teacher"), torch.no_grad():
            target = networks.guided(x_t, index)
        if self.adapters is not None:
            with meter("critic"), torch.no_grad():
                told = torch.cat([pose, torch.zeros_like(pose)])
                cond, uncond = networks.estimate(x_t.repeat(2, 1, 1, 1), index.repeat(2), told).chunk(2)
                baseline = uncond + 1.0 * (cond - uncond)
        with meter("decode"), torch.no_grad():
            networks.decode(latents)
        self._update_particles(latents, self._weight(index) * (target - baseline), meter)
        if self.adapters is not None:
            x_t, index, epsilon = self._diffused(latents)
            with meter("critic"):
                predicted = networks.estimate(x_t, index, pose)
            self._update_critic(predicted, epsilon, meter)

    def _latents(self, meter: Meter) -> tuple[Tensor, Tensor]:
        """The particles' pictures as latents, (B, 4, h, w), and their cameras, (B, 16)."""
        batch = self.batches(self.steps).to(self.networks.texts.device)
        with meter("render"):
            self.nerf.on_progress(self.steps, 0.0, self.rng)
            pictures = self.nerf(batch, self.rng).x
        with meter("encode"):
            latents = self.networks.encode(pictures)
        self.steps += 1
        pose = batch.condition.camera.pose.flatten(1)  # type: ignore[union-attr]  # the batches are of cameras
        return latents, pose.repeat(self.nerf.particles, 1).to(latents)

    def _diffused(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, their step's index and their noise."""
        low, high = STEPS // 50, STEPS - STEPS // 50
        index = torch.randint(low, high, (len(latents),), generator=self.rng).to(latents.device)
        epsilon = torch.randn(latents.shape, dtype=latents.dtype, generator=self.rng).to(latents.device)
        alpha = self.alphas[index][:, None, None, None]
        return alpha.sqrt() * latents.detach() + (1 - alpha).sqrt() * epsilon, index, epsilon

    def _weight(self, index: Tensor) -> Tensor:
        """w = sigma^2."""
        return 1 - self.alphas[index][:, None, None, None]

    def _update_particles(self, latents: Tensor, gradient: Tensor, meter: Meter) -> None:
        with meter("backward"):
            latents.backward(gradient / len(latents))
        with meter("optimizer"):
            self.particles.step()
            self.particles.zero_grad()

    def _update_critic(self, predicted: Tensor, epsilon: Tensor, meter: Meter) -> None:
        with meter("critic backward"):
            nn.functional.mse_loss(predicted, epsilon).backward()
        with meter("optimizer"):
            assert self.adapters is not None
            self.adapters.step()
            self.adapters.zero_grad()


def alphas_cumprod() -> Tensor:
    """alpha^2 at each of Stable Diffusion's steps."""
    ends = [float(BETAS[key]) ** 0.5 for key in ("beta_start", "beta_end")]
    return (1 - torch.linspace(*ends, STEPS, dtype=torch.float64).square()).cumprod(0)
