"""Networks that a critic can be made of: a small MLP, or any UNet of diffusers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scoredistill.types import Condition


class Backbone(nn.Module, ABC):
    """A network of (x_t, noise level, condition). A subclass implements `forward`."""

    @abstractmethod
    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        """The raw output.

        Args:
            x: (B, *D), scaled to about unit variance.
            log_snr: (B,) log(alpha^2 / sigma^2).
            condition: B rows, or None.

        Returns:
            (B, *D).
        """


class ConditionEmbedding(nn.Module):
    """Adds up embeddings of the class label and of the camera (pose and field of view through an MLP).

    Args:
        width: size of the embedding.
        classes: number of class labels; None: labels are ignored.
        camera: whether cameras are looked at.
        camera_dropout: probability with which a sample's camera is hidden in training, in [0, 1].
    """

    def __init__(self, width: int, classes: int | None = None, camera: bool = False, camera_dropout: float = 0.0):
        super().__init__()
        self.width, self.camera_dropout = width, camera_dropout
        self.label = nn.Embedding(classes, width) if classes else None
        self.camera = nn.Sequential(nn.Linear(17, width), nn.SiLU(), nn.Linear(width, width)) if camera else None

    @property
    def active(self) -> bool:
        """Whether there is anything to embed."""
        return self.label is not None or self.camera is not None

    def forward(self, condition: Condition | None, like: Tensor) -> Tensor:
        """(B, width), zero for what is not given; `like` (B, ...) tells B, dtype and device."""
        embedding = like.new_zeros(len(like), self.width)
        if self.label is not None:
            if condition is None or condition.label is None:
                raise ValueError("the critic was built with classes=, but the batch has no labels")
            embedding = embedding + self.label(condition.label.to(like.device))
        if self.camera is not None:
            if condition is None or condition.camera is None:
                raise ValueError("the critic was built with camera=True, but the batch has no cameras")
            camera = condition.camera
            features = torch.cat([camera.pose.flatten(1), torch.deg2rad(camera.fov)[:, None]], 1).to(like)
            seen = self.camera(features)
            if self.training and self.camera_dropout > 0:
                seen = seen * (torch.rand(len(seen), 1) >= self.camera_dropout).to(seen)
            embedding = embedding + seen
        return embedding


class MLPBackbone(Backbone):
    """A multilayer perceptron for points, small pictures or latents.

    The log signal-to-noise ratio enters by Fourier features; its embedding and the condition's are added in each layer.

    Args:
        shape: *D, the shape of one sample.
        hidden: width of the hidden layers.
        layers: number of hidden layers, >= 1.
        classes: number of class labels; None: unconditional.
        camera: whether it is conditioned on cameras.
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        hidden: int = 128,
        layers: int = 3,
        classes: int | None = None,
        camera: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        dims = math.prod(self.shape)
        self.condition = ConditionEmbedding(hidden, classes, camera)
        self.register_buffer("frequencies", torch.linspace(0.1, 3.0, hidden // 2), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * (hidden // 2), hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.layers = nn.ModuleList([nn.Linear(dims if i == 0 else hidden, hidden) for i in range(layers)])
        self.out = nn.Linear(hidden, dims)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        phase = log_snr[:, None] * self.frequencies
        embedding = self.time(torch.cat([phase.sin(), phase.cos()], 1)) + self.condition(condition, x)
        hidden = x.flatten(1)
        for i, layer in enumerate(self.layers):
            update = nn.functional.silu(layer(hidden) + embedding)
            hidden = update if i == 0 else hidden + update
        return self.out(hidden).view_as(x)


class DiffusersBackbone(Backbone):
    """Any UNet of diffusers: UNet2DModel, or UNet2DConditionModel with the condition's text embeddings.

    The noise level is given as the time 1000 sigma / (alpha + sigma), which every schedule shares. Labels and cameras
    are added to the time embedding; the network must then be built with class_embed_type="identity".

    Args:
        network: the UNet.
        classes: number of class labels; None: labels are ignored.
        camera: whether it is conditioned on cameras.
        camera_dropout: probability with which a sample's camera is hidden in training.

    Raises:
        ValueError: if labels or cameras are asked for and the network cannot take an embedding.
    """

    def __init__(
        self, network: nn.Module, classes: int | None = None, camera: bool = False, camera_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.network = network
        config: Any = network.config
        self.condition = ConditionEmbedding(4 * config.block_out_channels[0], classes, camera, camera_dropout)
        if self.condition.active and config.class_embed_type != "identity":
            raise ValueError('a UNet conditioned on labels or cameras needs class_embed_type: "identity"')

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        inputs = {"sample": x, "timestep": 1000 * torch.sigmoid(-0.5 * log_snr)}
        if self.condition.active:
            inputs["class_labels"] = self.condition(condition, x)
        if condition is not None and condition.embeddings is not None:
            inputs["encoder_hidden_states"] = condition.embeddings
        return self.network(**inputs, return_dict=False)[0]
