"""Inception-v3 features, the standard for FID and KID, from a local checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoredistill.evaluation.features import FeatureExtractor
from scoredistill.networks.weight_files import flaw, read_safetensors

FID_CLASSES = 1008
"""Number of classes of the network in the definition of FID; torchvision's has 1000."""


class InceptionFeatures(FeatureExtractor):
    """The 2048 pooled features of Inception-v3 for pictures resized to 299 x 299.

    Two layouts of weights are supported and distinguished by their number of classes: torchvision's
    (`inception_v3_google-*.pth`), and that of pytorch-fid, torch-fidelity and torchmetrics
    (`pt_inception-2015-12-05-6726825d.pth`, `weights-inception-2015-12-05-6726825d.pth`), with which FIDs in papers are
    computed. Pictures are resized bilinearly, with antialiasing if they are larger (arXiv:2104.11222); grayscale is
    repeated to three channels.

    "Rethinking the Inception Architecture for Computer Vision" (2015), arXiv:1512.00567.

    Args:
        path: file of the state dictionary, `.safetensors` or from `torch.save`; only tensors are read.

    Raises:
        FileNotFoundError: if the file does not exist; nothing is downloaded.
        ValueError: if it contains another network.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.network = build_inception(read_state(Path(path))).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> InceptionFeatures:
        """Stay in evaluation mode, because the batch normalization must not change."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"InceptionFeatures needs pictures (N, 1 or 3, H, W); got {tuple(x.shape)}")
        weight = next(self.network.parameters())
        rgb = x.to(weight).expand(-1, 3, -1, -1)
        # Both layouts were trained on values in [-1, 1].
        return self.network(
            functional.interpolate(rgb, (299, 299), mode="bilinear", align_corners=False, antialias=True)
        )


class Repooled(nn.Module):
    """An Inception block with another pooling in its last branch.

    Args:
        block: torchvision's block, with a `branch_pool`.
        pool: pooling that keeps the shape (N, C, H, W).
    """

    def __init__(self, block: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H, W)."""
        pooled = self.block.branch_pool(self.pool(x))  # type: ignore[operator]
        return torch.cat([self.block(x)[:, : -pooled.shape[1]], pooled], dim=1)


def build_inception(state: dict[str, Tensor]) -> nn.Module:
    """Build the network of a state dictionary, up to its pooled features.

    Raises:
        ValueError: if the tensors are not Inception-v3's.
    """
    from torchvision.models import inception_v3  # type: ignore[import-untyped]

    if "fc.weight" not in state or "Mixed_7c.branch_pool.conv.weight" not in state:
        raise ValueError(f"not a state dictionary of Inception-v3; its first keys are {sorted(state)[:3]}")
    classes = len(state["fc.weight"])
    auxiliary = "AuxLogits.fc.weight" in state
    # On the meta device nothing is initialized, which saves time and draws no random numbers.
    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False, num_classes=classes, aux_logits=auxiliary)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the tensors do not fit Inception-v3: {str(error).splitlines()[1].strip()}") from error
    network.AuxLogits = None
    network.fc = nn.Identity()
    if classes == FID_CLASSES:
        # TensorFlow's average pooling excludes the padding, and its last block uses max pooling.
        for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
            _repool(network, name, nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))
        _repool(network, "7c", nn.MaxPool2d(3, stride=1, padding=1))
    return network


def _repool(network: nn.Module, name: str, pool: nn.Module) -> None:
    setattr(network, f"Mixed_{name}", Repooled(getattr(network, f"Mixed_{name}"), pool))


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from a file, tensors only.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no Inception-v3 checkpoint at {path}: download torchvision's or pytorch-fid's weights and give their path"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if (reason := flaw(path)) is not None:
        raise ValueError(f"{path}: {reason}")
    return torch.load(path, map_location="cpu", weights_only=True)
