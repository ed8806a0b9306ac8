"""Embeddings of class labels and cameras."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoredistill.networks.backbone import NO_LABEL
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
