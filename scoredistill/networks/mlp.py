"""A multilayer perceptron for points, small pictures or latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from scoredistill.networks.backbone import Backbone, FeatureLayer
from scoredistill.networks.embedding import ConditionEmbedding
from scoredistill.ranges import require
from scoredistill.types import Condition


class MLPBackbone(Backbone):
    """A multilayer perceptron.

    The log signal-to-noise ratio is embedded with Fourier features. This embedding and the condition's are added in
    each layer.

    Args:
        shape: *D, the shape of one sample, >= 1.
        hidden: width of the hidden layers, >= 2.
        layers: number of hidden layers, >= 1.
        classes: number of class labels, >= 1; None: unconditional.
        camera: whether the network is conditioned on cameras.
        label_dropout: probability of dropping a label in training, in [0, 1].
        fourier: number of random Fourier features of the input, which allow steep functions, >= 0; 0: none.
        bandwidth: standard deviation of the Fourier features' frequencies, > 0.
        activation: silu, or relu for steeper functions.
        residual: whether layers have residual connections; functions without them can be steeper.
    """

    frequencies: Tensor
    directions: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        hidden: int = 128,
        layers: int = 3,
        classes: int | None = None,
        camera: bool = False,
        label_dropout: float = 0.0,
        fourier: int = 0,
        bandwidth: float = 2.0,
        activation: Literal["silu", "relu"] = "silu",
        residual: bool = True,
    ) -> None:
        require(">= 1", shape=shape, layers=layers, classes=classes)
        require(">= 2", hidden=hidden)
        require("[0, 1]", label_dropout=label_dropout)
        require(">= 0", fourier=fourier)
        require("> 0", bandwidth=bandwidth)
        super().__init__()
        self.shape = tuple(shape)
        self.hidden = hidden
        self.settings = {"shape": list(shape), "hidden": hidden, "layers": layers, "classes": classes}
        self.settings |= {"camera": camera, "label_dropout": label_dropout, "fourier": fourier}
        self.settings |= {"bandwidth": bandwidth, "activation": activation, "residual": residual}
        self.residual = residual
        self.activation = nn.functional.relu if activation == "relu" else nn.functional.silu
        dims = math.prod(self.shape)
        self.condition = ConditionEmbedding(hidden, classes, camera, label_dropout)
        self.register_buffer("frequencies", torch.linspace(0.1, 3.0, hidden // 2), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * (hidden // 2), hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.register_buffer("directions", bandwidth * torch.randn(dims, fourier))
        first = dims + 2 * fourier
        self.layers = nn.ModuleList([nn.Linear(first if i == 0 else hidden, hidden) for i in range(layers)])
        self.deep = nn.Identity()
        self.out = nn.Linear(hidden, dims)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        phase = log_snr[:, None] * self.frequencies
        embedding = self.time(torch.cat([phase.sin(), phase.cos()], 1).to(x.dtype)) + self.condition(condition, x)
        hidden = x.flatten(1)
        if self.directions.shape[1]:
            waves = hidden @ self.directions
            hidden = torch.cat([hidden, waves.sin(), waves.cos()], 1)
        for i, layer in enumerate(self.layers):
            update = self.activation(layer(hidden) + embedding)
            hidden = hidden + update if self.residual and i > 0 else update
        return self.out(self.deep(hidden)).view_as(x)

    @property
    def bottleneck(self) -> nn.Module:
        return self.deep

    @property
    def width(self) -> int:
        return self.hidden

    @property
    def feature_layers(self) -> list[FeatureLayer]:
        modules = [*self.layers[:-1], self.deep]
        return [FeatureLayer(module, self.hidden, spatial=False) for module in modules]
