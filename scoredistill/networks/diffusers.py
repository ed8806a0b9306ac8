"""UNets and transformers of diffusers as backbones."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scoredistill.diffusion.schedule import LinearSchedule, Schedule
from scoredistill.networks.backbone import NO_LABEL, Backbone, FeatureLayer
from scoredistill.networks.embedding import ConditionEmbedding
from scoredistill.ranges import require
from scoredistill.types import Condition, TextEmbeddings

TimeInput = Literal["edm", "flow", "discrete"]


class DiffusersBackbone(Backbone):
    """UNet2DModel, UNet2DConditionModel or a transformer of diffusers.

    The noise level is passed in the convention that the network was trained with:

        edm         250 log(sigma / alpha), four orders of magnitude apart for EDM's range
        flow        1000 sigma / (alpha + sigma)
        discrete    the index 0 ... N - 1 of a discrete schedule, for example Stable Diffusion's

    If the network embeds class labels (num_class_embeds, with an additional embedding for no label), labels are passed
    to it. Otherwise labels, and cameras in all cases, are embedded here and added to the time embedding; the network
    must then be built with class_embed_type="identity".

    Args:
        network: the model of diffusers.
        classes: number of class labels, >= 1; None: labels are ignored.
        camera: whether the network is conditioned on cameras.
        label_dropout: probability of dropping a label in training, in [0, 1].
        camera_dropout: probability of dropping a camera in training, in [0, 1].
        time: the convention of the noise level.
        schedule: schedule of the convention `discrete`; None: Stable Diffusion's.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them.

    Raises:
        ValueError: if the network does not support labels or cameras, and they are requested.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int | None = None,
        camera: bool = False,
        label_dropout: float = 0.0,
        camera_dropout: float = 0.0,
        time: TimeInput = "edm",
        schedule: Schedule | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        require(">= 1", classes=classes)
        require("[0, 1]", label_dropout=label_dropout, camera_dropout=camera_dropout)
        super().__init__()
        self.network = network
        self.classes = classes
        self.label_dropout = label_dropout
        self.time: TimeInput = time
        self.schedule = schedule or LinearSchedule()
        self.settings: dict[str, Any] = {"classes": classes, "camera": camera, "label_dropout": label_dropout}
        self.settings |= {"camera_dropout": camera_dropout, "time": time}
        self._known = set(inspect.signature(network.forward).parameters)
        config: Any = network.config
        rows = config.get("num_class_embeds") or config.get("num_embeds_ada_norm") or 0
        self.own_labels = classes is not None and not camera and rows >= classes
        self.null_label = rows - 1 if self.own_labels and classes is not None and rows > classes else None
        if self.own_labels and label_dropout > 0 and self.null_label is None:
            raise ValueError(
                f"label_dropout needs a network with num_class_embeds {rows + 1}, with an embedding for no label"
            )
        embedded = None if self.own_labels else classes
        width = 4 * config.get("block_out_channels", [0])[0]
        self.condition = ConditionEmbedding(width, embedded, camera, label_dropout, camera_dropout)
        if self.condition.active and config.get("class_embed_type") != "identity":
            raise ValueError(
                'a network conditioned on labels or cameras needs num_class_embeds or class_embed_type: "identity"'
            )
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()  # type: ignore[operator]

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        x = x.to(self.dtype)
        output = self.network(x, **self.inputs(x, log_snr, condition), return_dict=False)[0]
        return output[:, : x.shape[1]]  # some networks predict a variance in additional channels

    def inputs(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> dict[str, Any]:
        """The network's inputs other than x. A subclass adds the inputs of its architecture."""
        inputs: dict[str, Any] = {"timestep": self._timestep(log_snr)}
        if self.own_labels:
            inputs["class_labels"] = self._labels(condition, len(x), x.device)
        elif self.condition.active:
            inputs["class_labels"] = self.condition(condition, x)
        if "encoder_hidden_states" in self._known:
            inputs["encoder_hidden_states"] = self.text(condition).tokens.to(x)
        return inputs

    @staticmethod
    def text(condition: Condition | None) -> TextEmbeddings:
        """The condition's text embeddings.

        Raises:
            ValueError: if it has none.
        """
        if condition is None or condition.embeddings is None:
            raise ValueError("the network is conditioned on text, but the condition has no embeddings")
        return TextEmbeddings.of(condition.embeddings)

    @classmethod
    def pooled(cls, condition: Condition | None) -> Tensor:
        """The condition's pooled text embeddings, (B, P).

        Raises:
            ValueError: if it has none.
        """
        pooled = cls.text(condition).pooled
        if pooled is None:
            raise ValueError("the network needs pooled text embeddings: TextEmbeddings(tokens, pooled)")
        return pooled

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network's weights and input."""
        return next(self.network.parameters()).dtype

    @property
    def bottleneck(self) -> nn.Module:
        middle = getattr(self.network, "mid_block", None)
        if isinstance(middle, nn.Module):
            return middle
        blocks = getattr(self.network, "transformer_blocks", None)
        return super().bottleneck if blocks is None else _picture_layer(blocks[len(blocks) // 2])

    @property
    def feature_layers(self) -> list[FeatureLayer]:
        """A UNet's blocks down to the middle one, or a transformer's first half."""
        config, middle = self.network.config, FeatureLayer(self.bottleneck, self.width, self.spatial)
        if self.spatial:
            down: Any = self.network.down_blocks
            widths: Any = config["block_out_channels"]  # type: ignore[index]
            return [*(FeatureLayer(*each, True) for each in zip(down, widths, strict=True)), middle]
        blocks: Any = self.network.transformer_blocks
        return [*(FeatureLayer(_picture_layer(b), self.width, False) for b in blocks[: len(blocks) // 2]), middle]

    @property
    def spatial(self) -> bool:
        return isinstance(getattr(self.network, "mid_block", None), nn.Module)

    @property
    def width(self) -> int:
        config: Any = self.network.config
        if "block_out_channels" in config:
            return int(config["block_out_channels"][-1])
        return int(config["num_attention_heads"] * config["attention_head_dim"])

    def _timestep(self, log_snr: Tensor) -> Tensor:
        match self.time:
            case "edm":
                return -125 * log_snr
            case "flow":
                return 1000 * torch.sigmoid(-0.5 * log_snr)
            case _:
                steps = getattr(self.schedule, "steps", 1000)
                return (steps * self.schedule.t_at_log_snr(log_snr) - 1).clamp(min=0)

    def _labels(self, condition: Condition | None, n: int, device: torch.device) -> Tensor:
        """The class of each sample, or the index of the embedding for no label."""
        labels = None if condition is None else condition.label
        label = torch.full((n,), NO_LABEL, device=device) if labels is None else labels.to(device)
        if self.null_label is None:
            if labels is None or bool((label == NO_LABEL).any()):
                raise ValueError(
                    "the network was built with classes=, but the batch has no labels; calls without labels need a "
                    "network with one more class embedding and label_dropout above 0"
                )
            return label
        label = label.masked_fill(label == NO_LABEL, self.null_label)
        if self.training and self.label_dropout > 0:
            label = label.masked_fill((torch.rand(n) < self.label_dropout).to(device), self.null_label)
        return label


def _picture_layer(block: nn.Module) -> nn.Module:
    """The layer of a transformer's block whose output is the picture's tokens."""
    # Blocks with joint attention to text and picture return the text first; the input of this layer is the picture.
    return block.norm1 if hasattr(block, "norm1_context") else block  # type: ignore[return-value]
