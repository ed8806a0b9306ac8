"""The minimum arithmetic of a step, counted on networks without weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sd_networks import TOKENS, Size
from sd_steps import adapted
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def step_flops(size: Size, vsd: bool) -> int:
    """Floating-point operations of a step per particle, without the few of rendering.

    They consist of the encoder's forward and backward to the picture, the teacher's two branches and, for VSD, the
    critic's forward and backward to its adapters. Nothing is computed twice.

    Args:
        size: of the networks.
        vsd: whether the critic is included.
    """
    side = size.pixels // 8
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):  # the counter sees attention as matrix products
        unet, vae = size.make_unet().requires_grad_(False), size.make_vae().requires_grad_(False)
        latent, time, text = torch.randn(1, 4, side, side), torch.zeros(1), torch.randn(1, TOKENS, size.text)
        picture = torch.randn(1, 3, size.pixels, size.pixels, requires_grad=True)
        flops = counted(lambda: vae.encode(picture).latent_dist.mean.sum().backward())
        flops += 2 * counted(lambda: unet(latent, time, text))
        if vsd:
            critic = adapted(unet)
            flops += counted(lambda: critic(latent, time, text, torch.randn(1, 16)).sample.sum().backward())
    return flops


def counted(work: Callable[[], object]) -> int:
    """Floating-point operations of a function call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_product(side: int, dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """A product of two matrices, 2 side^3 operations, by which the device's rate is measured."""
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    return lambda: a @ b
