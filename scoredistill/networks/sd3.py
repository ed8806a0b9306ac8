"""The transformer of Stable Diffusion 3."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.types import Condition


class SD3Backbone(DiffusersBackbone):
    """An SD3Transformer2DModel: it reads tokens and the prompt's pooled embedding, and the time as 1000 sigma.

    Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2024, arXiv:2403.03206.

    Args:
        network: the model of diffusers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, time="flow")
        self.settings = {}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        return super().inputs(x, log_snr, condition) | {"pooled_projections": self.pooled(condition).to(x)}
