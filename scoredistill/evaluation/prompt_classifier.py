"""A classifier of the Gallery's prompts that is robust to imperfect pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from scoredistill.data.synthetic import GalleryImages
from scoredistill.evaluation.features import trunk
from scoredistill.evaluation.rows import in_pieces
from scoredistill.files import write_atomically
from scoredistill.networks.weight_files import read_safetensors
from scoredistill.ranges import require

BATCH = 64
RATE = 3e-3
"""Batch size and initial learning rate of Adam; the learning rate decreases to 0."""

CHECKED = 40
"""Number of pictures per prompt on which the accuracies are computed."""


class PromptClassifier(nn.Module):
    """Classifies pictures by prompt with a small convolutional network trained on the Gallery's pictures.

    It is applied to renders of NeRFs, which are softer, noisier, paler or more saturated than the Gallery's pictures.
    The training pictures are therefore corrupted in the same ways (`corrupt`). Its accuracies on clean and on corrupted
    pictures are computed from cameras that are not used in training.

    Training runs in float32 on the CPU and takes less than a minute. It depends on `seed` alone and neither reads nor
    changes torch's global random state.

    Args:
        prompts: at least two different prompts.
        resolution: height and width to which pictures are resized, >= 8.
        pictures: number of training pictures per prompt, >= 1.
        steps: number of training steps, >= 1.
        seed: seed of pictures and training, in [0, 2^31).

    Raises:
        ValueError: if there are fewer than two prompts, two are equal, or the Gallery does not support one.
    """

    accuracies: Tensor
    scale: Tensor

    def __init__(
        self, prompts: Sequence[str], resolution: int = 32, pictures: int = 160, steps: int = 300, seed: int = 0
    ) -> None:
        require(">= 8", resolution=resolution)
        require(">= 1", pictures=pictures, steps=steps)
        require("[0, 2^31)", seed=seed)
        super().__init__()
        if isinstance(prompts, str) or len(set(prompts)) < max(2, len(prompts)):
            raise ValueError(f"prompts: expected a list of two or more different prompts, got {prompts!r}")
        self.prompts = tuple(prompts)
        self.resolution = resolution
        self.pictures = pictures
        self.steps = steps
        self.seed = seed
        # Lightning validates in inference mode, whose tensors cannot be trained.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.trunk = trunk(torch.Size((3, resolution, resolution)), 16, 64)
            self.head = nn.Linear(64, len(prompts), dtype=torch.float32)
            self.register_buffer("accuracies", torch.zeros(2, dtype=torch.float32))
            self.register_buffer("scale", torch.ones((), dtype=torch.float32))

    @property
    def accuracy(self) -> float:
        """Accuracy on unseen Gallery pictures."""
        return float(self.accuracies[0])

    @property
    def accuracy_corrupted(self) -> float:
        """Accuracy on unseen Gallery pictures after `corrupt`."""
        return float(self.accuracies[1])

    def fit(self) -> Self:
        """Render the Gallery's pictures and train on them."""
        count = self.pictures * len(self.prompts)
        with torch.inference_mode(False), torch.enable_grad():
            source = GalleryImages(self.prompts, self.resolution, count, seed=2 * self.seed)
            x, labels = source.take(torch.arange(count))
            self._train(x.float(), labels, torch.Generator().manual_seed(self.seed))
        unseen = GalleryImages(self.prompts, self.resolution, CHECKED * len(self.prompts), seed=2 * self.seed + 1)
        pictures, target = unseen.take(torch.arange(len(unseen)))
        rng = torch.Generator().manual_seed(self.seed)
        each = (pictures.float(), torch.cat([corrupt(part, rng) for part in pictures.float().split(8)]))
        self.accuracies = torch.stack([(self.recognize(part) == target).float().mean() for part in each])
        return self.requires_grad_(False)

    def _train(self, x: Tensor, labels: Tensor, rng: torch.Generator) -> None:
        optimizer = torch.optim.Adam(self.parameters(), RATE)
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / self.steps)
            rows = torch.randint(len(x), (BATCH,), generator=rng)
            loss = cross_entropy(self._logits(corrupt(x[rows], rng)), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            self.scale = in_pieces(self.trunk, x, 256).square().mean().clamp(min=1e-12).rsqrt()

    def features(self, pictures: Tensor) -> Tensor:
        """The last hidden layer, (B, 64), scaled to a mean square of 1 over the Gallery's pictures.

        Args:
            pictures: (B, 3, H, W) in [-1, 1].
        """
        return self.scale * in_pieces(self.trunk, self._resized(pictures), 256)

    @torch.no_grad()
    def recognize(self, pictures: Tensor) -> Tensor:
        """Index of the predicted prompt of each picture, (B,).

        Args:
            pictures: (B, 3, H, W) in [-1, 1].
        """
        return in_pieces(self._logits, self._resized(pictures), 256).argmax(1)

    def _resized(self, pictures: Tensor) -> Tensor:
        x = pictures.detach().to("cpu", torch.float32).clamp(-1, 1)
        side = (self.resolution, self.resolution)
        return x if x.shape[-2:] == side else interpolate(x, side, mode="bilinear", antialias=True)

    def _logits(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))

    @classmethod
    def cached(cls, folder: str | Path, prompts: Sequence[str]) -> Self:
        """Read the fitted classifier of these prompts from a folder, or train it and write it there.

        Args:
            folder: folder of classifiers, each in a safetensors file named by the hash of its prompts and sizes.
            prompts: see the constructor.
        """
        from safetensors.torch import save

        result = cls(prompts)
        sizes = {name: list(value.shape) for name, value in result.state_dict().items()}
        key = json.dumps([result.prompts, result.resolution, result.pictures, result.steps, result.seed, sizes])
        path = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        if path.is_file():
            result.load_state_dict(read_safetensors(path))
            return result.requires_grad_(False)
        result.fit()
        content = save({name: value.contiguous() for name, value in result.state_dict().items()})
        write_atomically(path, lambda file: file.write(content))
        return result


def corrupt(x: Tensor, rng: torch.Generator) -> Tensor:
    """Corrupt pictures as in renders of an imperfect NeRF.

    They are blurred by a reduction to no less than three eighths of their resolution, their saturation is multiplied by
    .4 to 1.8 and their contrast by .7 to 1.2, and noise with a standard deviation of up to .2 is added.

    Args:
        x: (B, 3, H, W) in [-1, 1], all with the same blur.
        rng: CPU generator.
    """
    side = x.shape[-1]
    coarse = int(torch.randint(3 * side // 8, side + 1, (1,), generator=rng))
    x = interpolate(interpolate(x, coarse, mode="bilinear", antialias=True), side, mode="bilinear")
    saturation, contrast, noise = torch.rand(3, len(x), 1, 1, 1, dtype=torch.float32, generator=rng).to(x)
    gray = x.mean(1, keepdim=True)
    x = gray + (0.4 + 1.4 * saturation) * (x - gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (0.7 + 0.5 * contrast) * (x - mean)
    return (x + 0.2 * noise * torch.randn(x.shape, dtype=torch.float32, generator=rng).to(x)).clamp(-1, 1)
