"""Feature extractors in whose features sets of samples are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import Self

import torch
from torch import Tensor, nn

from scoredistill.evaluation.rows import as_rows, in_pieces
from scoredistill.ranges import require


class FeatureExtractor(nn.Module, ABC):
    """Maps samples to features phi(x). A subclass implements `forward`, and `fit` if it learns from data."""

    def fit(self, data: Tensor, labels: Tensor | None = None) -> Self:
        """Fit to real data; by default there is nothing to fit. Returns self.

        Args:
            data: (N, *D) in [-1, 1].
            labels: (N,) integer classes, or None.
        """
        del data, labels
        return self

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute features.

        Args:
            x: (N, *D) in [-1, 1].

        Returns:
            (N, F).
        """

    def classify(self, x: Tensor) -> Tensor | None:
        """Predicted class of each sample, (N,); None if the extractor is not a classifier."""
        del x
        return None


def embed(extractor: FeatureExtractor, x: Tensor, rows: int = 256) -> Tensor:
    """Features (N, F) of any number of samples, in float64 on the CPU, without gradients.

    Args:
        extractor: a fitted extractor; it is evaluated on its device.
        x: (N, *D).
        rows: number of samples per call.
    """
    tensor = next(chain(extractor.parameters(), extractor.buffers()), x)
    with torch.no_grad():
        return in_pieces(lambda piece: extractor(piece.to(tensor.device)).to("cpu", torch.float64), x, rows)


class PCAFeatures(FeatureExtractor):
    """Projection on the data's directions of largest variance:

        phi(x) = V^T (x - mean)

    There is no whitening, so distances approximate those between the samples, within the kept directions.

    Args:
        components: number of directions F, >= 1; fewer if the data have fewer dimensions or points.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, components: int = 32) -> None:
        require(">= 1", components=components)
        super().__init__()
        self.components = components
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("directions", torch.empty(0))

    def fit(self, data: Tensor, labels: Tensor | None = None) -> Self:
        """Compute the directions; labels are ignored.

        Raises:
            ValueError: if there are fewer than two points, or a number is not finite.
        """
        rows = as_rows(data, "data")
        self.mean = rows.mean(0)
        centered = rows - self.mean
        if len(rows) > rows.shape[1]:
            directions = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)
        else:
            directions = torch.linalg.svd(centered, full_matrices=False).Vh[:-1].T  # the last one has no variance
        self.directions = directions[:, : self.components].contiguous()
        return self

    def forward(self, x: Tensor) -> Tensor:
        if not self.directions.numel():
            raise RuntimeError("PCAFeatures must be fitted to data before it is called")
        return ((x.flatten(1).to(self.mean) - self.mean) @ self.directions).to(x.dtype)


class ClassifierFeatures(FeatureExtractor):
    """The last hidden layer of a small classifier that is trained on the labeled data.

    The classifier is a convolutional network for pictures and a multilayer perceptron for other samples. Features are
    scaled to a mean square of 1 over the training data. Training runs in float32 on the CPU and depends on `seed`
    alone: it neither reads nor changes torch's global random state.

    Args:
        hidden: channels of the first convolution, >= 1; later ones have 2 hidden, the layer for points 4 hidden.
        features: width F of the last hidden layer, >= 1.
        steps: steps of Adam, with a learning rate that decreases to 0, >= 1.
        batch: samples per step, >= 1.
        lr: initial learning rate, > 0.
        held_out: share of the data that is not used for training and on which `accuracy` is computed, in (0, 1).
        seed: seed of the initialization, the split and the order of the samples, in [0, 2^32).
    """

    classes: Tensor
    moments: Tensor
    scale: Tensor

    def __init__(
        self,
        hidden: int = 16,
        features: int = 64,
        steps: int = 300,
        batch: int = 128,
        lr: float = 3e-3,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> None:
        require(">= 1", hidden=hidden, features=features, steps=steps, batch=batch)
        require("> 0", lr=lr)
        require("(0, 1)", held_out=held_out)
        require("[0, 2^32)", seed=seed)
        super().__init__()
        self.hidden = hidden
        self.features = features
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.held_out = held_out
        self.seed = seed
        self.trunk = nn.Sequential()
        self.head = nn.Sequential()
        self.accuracy: float | None = None
        """Accuracy on held-out data; None before `fit`."""
        self.register_buffer("classes", torch.empty(0, dtype=torch.long))
        self.register_buffer("moments", torch.tensor([0.0, 1.0], dtype=torch.float32))
        self.register_buffer("scale", torch.ones((), dtype=torch.float32))

    def fit(self, data: Tensor, labels: Tensor | None = None) -> Self:
        """Train on labeled data.

        Raises:
            ValueError: if there is not one label per sample, or only one class.
        """
        if labels is None or labels.shape != data.shape[:1]:
            raise ValueError("ClassifierFeatures needs one label per sample; use PCAFeatures for data without labels")
        as_rows(data, "data")
        # Lightning validates in inference mode, whose tensors cannot be used for training.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            x = data.detach().to("cpu", torch.float32, copy=True)
            self.classes, target = labels.detach().cpu().clone().unique(return_inverse=True)
            if len(self.classes) < 2:
                raise ValueError("ClassifierFeatures needs at least two classes")
            self.moments = torch.stack([x.mean(), x.std().clamp(min=1e-6)])
            self.scale = torch.ones((), dtype=torch.float32)
            self.trunk = trunk(x.shape[1:], self.hidden, self.features)
            self.head = nn.Sequential(nn.Linear(self.features, len(self.classes), dtype=torch.float32))
            self._train(x, target, torch.Generator().manual_seed(self.seed))
        return self.requires_grad_(False).eval()

    def _train(self, x: Tensor, target: Tensor, rng: torch.Generator) -> None:
        order = torch.randperm(len(x), generator=rng)
        count = max(1, round(self.held_out * len(x)))
        held = order[:count]
        used = order[count:]
        weights = [*self.trunk.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(weights, self.lr)
        # Noise and smoothed labels halve the error on small sets of pictures; points can be closer than the noise.
        noise = 0.3 * float(self.moments[1]) if x.ndim == 4 else 0.0
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = self.lr * (1 - step / self.steps)
            rows = used[torch.randint(len(used), (self.batch,), generator=rng)]
            noisy = x[rows] + noise * torch.randn(x[rows].shape, dtype=x.dtype, generator=rng)
            loss = nn.functional.cross_entropy(self.logits(noisy), target[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            self.scale = in_pieces(self, x[used], 256).square().mean().clamp(min=1e-12).rsqrt()
            correct = in_pieces(self.logits, x[held], 256).argmax(1) == target[held]
        self.accuracy = float(correct.double().mean())

    def forward(self, x: Tensor) -> Tensor:
        if not self.trunk:
            raise RuntimeError("ClassifierFeatures must be fitted to labeled data before it is called")
        mean, std = self.moments
        return self.scale * self.trunk((x.to(self.moments) - mean) / std)

    def logits(self, x: Tensor) -> Tensor:
        """log p(class | x) up to a constant, (N, K), in the order of `classes`."""
        return self.head(self(x) / self.scale)

    def classify(self, x: Tensor) -> Tensor:
        device = self.moments.device
        with torch.no_grad():
            index = in_pieces(lambda piece: self.logits(piece.to(device)).argmax(1), x, 256)
        return self.classes[index].cpu()


def trunk(shape: torch.Size, hidden: int, features: int) -> nn.Sequential:
    """The classifier up to its last hidden layer, in float32.

    Args:
        shape: (C, H, W) of pictures, or any other shape, which is flattened.
        hidden: see `ClassifierFeatures`.
        features: see `ClassifierFeatures`.
    """
    exact = torch.float32
    if len(shape) != 3:
        wide = 4 * hidden
        first = nn.Linear(shape.numel(), wide, dtype=exact)
        return nn.Sequential(nn.Flatten(), first, nn.SiLU(), nn.Linear(wide, features, dtype=exact), nn.SiLU())
    channels, height, width = shape
    layers: list[nn.Module] = [nn.Conv2d(channels, hidden, 3, padding=1, dtype=exact), nn.SiLU()]
    inner = hidden
    while max(height, width) > 4:
        layers += [nn.Conv2d(inner, 2 * hidden, 3, stride=2, padding=1, dtype=exact), nn.SiLU()]
        inner = 2 * hidden
        height = (height + 1) // 2
        width = (width + 1) // 2
    last = nn.Linear(inner * height * width, features, dtype=exact)
    return nn.Sequential(*layers, nn.Flatten(), last, nn.SiLU())
