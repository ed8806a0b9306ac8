"""Embeddings of class labels and cameras, also for a network that was trained without cameras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scoredistill.files import write_atomically
from scoredistill.networks.backbone import NO_LABEL, Backbone, FeatureLayer
from scoredistill.networks.lora import copy_tensors
from scoredistill.ranges import require
from scoredistill.types import Condition


class ConditionEmbedding(nn.Module):
    """The sum of the embeddings of the class label and of the camera (pose and field of view through an MLP).

    Args:
        width: size of the embedding, >= 0; 0 without conditions.
        classes: number of class labels, >= 1; None: labels are ignored.
        camera: whether cameras are embedded.
        label_dropout: probability of dropping a sample's label in training, in [0, 1]. Above 0 the network can also be
            called without labels, for classifier-free guidance.
        camera_dropout: probability of dropping a sample's camera in training, in [0, 1].
    """

    def __init__(
        self,
        width: int,
        classes: int | None = None,
        camera: bool = False,
        label_dropout: float = 0.0,
        camera_dropout: float = 0.0,
    ) -> None:
        require(">= 0", width=width)
        require(">= 1", classes=classes)
        require("[0, 1]", label_dropout=label_dropout, camera_dropout=camera_dropout)
        super().__init__()
        self.width = width
        self.label_dropout = label_dropout
        self.camera_dropout = camera_dropout
        self.label = nn.Embedding(classes, width) if classes else None
        self.camera = nn.Sequential(nn.Linear(17, width), nn.SiLU(), nn.Linear(width, width)) if camera else None

    @property
    def active(self) -> bool:
        """Whether labels or cameras are embedded."""
        return self.label is not None or self.camera is not None

    def forward(self, condition: Condition | None, like: Tensor) -> Tensor:
        """The embedding, (B, width), zero for dropped labels and cameras.

        Args:
            condition: B rows, or None.
            like: (B, ...) with the result's dtype and device.

        Raises:
            ValueError: if a label is missing that was never dropped in training, or a camera is missing.
        """
        return self._label_embedding(condition, like) + self._camera_embedding(condition, like)

    def _label_embedding(self, condition: Condition | None, like: Tensor) -> Tensor:
        if self.label is None:
            return like.new_zeros(len(like), self.width)
        label = None if condition is None or condition.label is None else condition.label.to(like.device)
        if self.label_dropout == 0 and (label is None or bool((label == NO_LABEL).any())):
            raise ValueError(
                "the network was built with classes=, but the batch has no labels; calls without labels need a network "
                "with label_dropout above 0"
            )
        if label is None:
            return like.new_zeros(len(like), self.width)
        labeled = label != NO_LABEL
        return self._dropped(self.label(label.where(labeled, 0)).where(labeled[:, None], 0), self.label_dropout)

    def _camera_embedding(self, condition: Condition | None, like: Tensor) -> Tensor:
        if self.camera is None:
            return like.new_zeros(len(like), self.width)
        if condition is None or condition.camera is None:
            raise ValueError("the network was built with camera=True, but the batch has no cameras")
        camera = condition.camera
        features = torch.cat([camera.pose.flatten(1), torch.deg2rad(camera.fov)[:, None]], 1).to(like)
        return self._dropped(self.camera(features), self.camera_dropout)

    def _dropped(self, embedding: Tensor, probability: float) -> Tensor:
        if not self.training or probability == 0:
            return embedding
        return embedding * (torch.rand(len(embedding), 1) >= probability).to(embedding)


FILE = "camera_embedding.safetensors"

TIME_LAYERS = ("time_embedding", "time_text_embed", "adaln_single.emb")
"""Last parts of the names of the layers in which networks of diffusers embed the noise level, (B, width)."""


class CameraConditioned(Backbone):
    """A backbone F that is also conditioned on the camera:

        F(x, emb(t) + W_2 silu(W_1 pose + b_1) + b_2)

    with the flattened 4 x 4 pose, camera to world. W_2 and b_2 are zero at first, so the initial output is unchanged.

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213.

    Args:
        backbone: F, which embeds the noise level in a layer with one of diffusers' names.
        dropout: probability of dropping a sample's camera in training, in [0, 1], that is, of adding zero.

    Raises:
        ValueError: if there is no such layer, or dropout is out of range.
    """

    def __init__(self, backbone: Backbone, dropout: float = 0.1) -> None:
        require("[0, 1]", dropout=dropout)
        super().__init__()
        self.backbone = backbone
        self.dropout = dropout
        last = self._last_linear(self._time_layer)
        width, weight = last.out_features, last.weight
        first = nn.Linear(16, width, device=weight.device)
        second = nn.Linear(width, width, device=weight.device)
        for parameter in second.parameters():
            nn.init.zeros_(parameter)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        with self._adding(self.embedding(condition)):
            return self.backbone(x, log_snr, condition)

    def embedding(self, condition: Condition | None) -> Tensor:
        """The term that is added to the time embedding, (B, width), zero for dropped cameras.

        Args:
            condition: a condition with B cameras; without them, and in evaluation only, the result is (1, width) of
                zeros, as if all were dropped.

        Raises:
            ValueError: if there are no cameras, in training or without dropout.
        """
        if condition is None or condition.camera is None:
            if self.training or self.dropout == 0:
                raise ValueError(
                    "the critic was built with camera: true, but the batch has no cameras: set camera: false; if the "
                    "loss asks for all views, as ESD does, set camera_dropout above 0"
                )
            bias = list(self.mlp.parameters())[-1]
            return torch.zeros_like(bias)[None]
        embedding = self.mlp(condition.camera.pose.flatten(1).to(next(self.mlp.parameters())))
        if not self.training or self.dropout == 0:
            return embedding
        return embedding * (torch.rand(len(embedding), 1) >= self.dropout).to(embedding)

    def save(self, folder: str | Path) -> None:
        """Write the camera's MLP into a folder.

        Args:
            folder: the destination.
        """
        from safetensors.torch import save

        content = save({name: value.detach() for name, value in self.mlp.named_parameters()})
        write_atomically(Path(folder) / FILE, lambda file: file.write(content))

    def load(self, folder: str | Path) -> None:
        """Load an MLP that `save` has written.

        Args:
            folder: the folder of `save`.

        Raises:
            ValueError: if there is no file, or its width is different.
        """
        copy_tensors(dict(self.mlp.named_parameters()), Path(folder) / FILE)

    @property
    def bottleneck(self) -> nn.Module:
        return self.backbone.bottleneck

    @property
    def spatial(self) -> bool:
        return self.backbone.spatial

    @property
    def width(self) -> int:
        return self.backbone.width

    @property
    def feature_layers(self) -> Sequence[FeatureLayer]:
        return self.backbone.feature_layers

    @property
    def _time_layer(self) -> nn.Module:
        ends = tuple(f".{name}" for name in TIME_LAYERS)
        named = self.backbone.named_modules()
        layer = next((module for name, module in named if f".{name}".endswith(ends)), None)
        if layer is None:
            raise ValueError(
                f"camera: {type(self.backbone).__name__}'s network has none of {', '.join(TIME_LAYERS)}, to which the "
                "camera's embedding is added: set camera: false"
            )
        return layer

    @staticmethod
    def _last_linear(layer: nn.Module) -> nn.Linear:
        """The last linear layer of the time embedding, whose output has the embedding's width."""
        return cast(nn.Linear, getattr(layer, "timestep_embedder", layer).linear_2)

    @contextmanager
    def _adding(self, embedding: Tensor) -> Iterator[None]:
        def add(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            return output + embedding.to(output)

        handle = self._time_layer.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
