"""UNets that are told the camera."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.types import Condition


class MultiViewBackbone(DiffusersBackbone):
    """A UNet2DConditionModel whose class embedding projects the flattened 4 x 4 pose of each row's camera.

    The pose is that of `Camera`: camera to world, row by row, y up.

    MVDream: Multi-view Diffusion for 3D Generation, 2023, arXiv:2308.16512.

    Args:
        network: the model of diffusers, with class_embed_type "projection" or "simple_projection" of 16 numbers.
        schedule: the discrete schedule that it was trained with; null: Stable Diffusion's.

    Raises:
        ValueError: if its projection is not of 16 numbers.
    """

    def __init__(self, network: nn.Module, schedule: Schedule | None = None) -> None:
        super().__init__(network, time="discrete", schedule=schedule)
        config: Any = network.config
        numbers = config.projection_class_embeddings_input_dim
        if numbers != 16:
            raise ValueError(f"the UNet's class embedding takes {numbers} numbers, but a camera's 4 x 4 pose has 16")
        self.settings = {}

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        if condition is None or condition.camera is None:
            raise ValueError("the network is told where each picture is seen from, but the condition has no camera")
        return super().inputs(x, log_snr, condition) | {"class_labels": condition.camera.pose.flatten(1).to(x)}
