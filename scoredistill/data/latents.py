"""A cache of the latents of a data set, and the encoder of a text-to-image pipeline that fills it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoredistill.data.source import ImageSource, Item
from scoredistill.files import write_atomically
from scoredistill.networks.storage import find_trained
from scoredistill.networks.weight_files import flaw
from scoredistill.ranges import require
from scoredistill.teachers.diffusers.codec import LatentCodec
from scoredistill.teachers.diffusers.loading import Source


class PictureEncoder(nn.Module):
    """Encodes pictures to the latents of a pipeline's `DiffusersTeacher`, for `encode` of `LatentCache`.

    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.

    Args:
        model: id on the hub, folder of a pipeline, or output folder of the recipe that trains one, whose newest
            finished run is used.
        revision: branch, tag or commit of a hub repository; None: its main branch.
        variant: variant of the weight files, such as fp16; None: no variant.

    Raises:
        ValueError: if the pipeline does not exist or has no autoencoder.
    """

    def __init__(self, model: str, revision: str | None = None, variant: str | None = None) -> None:
        super().__init__()
        source = Source(str(find_trained(model, "pipeline", "model_index.json") or model), revision, variant)
        self.codec = LatentCodec(source.read("vae", torch.float32).requires_grad_(False)).eval()

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures, on a GPU if there is one; the latents are on the CPU.

        Args:
            pictures: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, C, h, w).
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.codec.to(device).encode(pictures.to(device)).cpu()


MEMORY = re.compile(r" at 0x[0-9a-f]+")
"""The memory address in the text of an object."""


class LatentCache(ImageSource):
    """The latents of another source, encoded on first access and then read from files.

    The file names contain a hash of the source's content and of the encoder, so one folder can hold several caches. An
    interrupted cache is continued after the last complete file. The hash includes every sample of the source with its
    class, and a network's weights, layers and config; any other encoder whose name does not identify its behavior needs
    a `name`. A mirrored latent is not the latent of the mirrored picture, so samples cannot be flipped.

    Args:
        source: the pictures.
        encode: network or function that maps pictures (B, C, H, W) in [-1, 1] of the default type, on the CPU, to
            latents (B, *D). Each latent must depend on its picture alone, such as the mean of a VAE; otherwise a
            continued cache would differ.
        folder: folder of the files; it is created if it does not exist.
        batch: number of pictures per call of encode, >= 1.
        shard: number of latents per file, >= 1.
        name: name of the encoder; None: the name of its function or class, with a hash of its weights.

    Raises:
        ValueError: if the source has no end, a number is not positive, the encoder cannot be identified, or encode
            returns another number of latents.
    """

    flippable = False

    def __init__(
        self,
        source: ImageSource,
        encode: nn.Module | Callable[[Tensor], Tensor],  # jsonargparse takes no module for a callable
        folder: str | Path,
        batch: int = 64,
        shard: int = 4096,
        name: str | None = None,
    ) -> None:
        require(">= 1", batch=batch, shard=shard)
        super().__init__(None, source.classes)
        if source.endless:
            raise ValueError(f"source: {type(source).__name__} has no end and cannot be cached: set its count")
        self.source = source
        self.encode = encode
        self.folder = Path(folder)
        self.batch = batch
        self.per_file = shard
        self.encoder = encoder_name(encode) if name is None else name
        self._open: dict[int, Any] = {}

    @property
    def captions(self) -> Sequence[str] | None:
        return self.source.captions

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        samples, labels = self.take(torch.tensor([self._checked(index)]))
        return samples[0], None if labels is None else int(labels[0])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        rows = [self._row(index) for index in indices.tolist()] or [self._row(0)]
        latents = torch.stack([latent for latent, _ in rows]).to(torch.get_default_dtype())
        labels = None if self.classes is None else torch.stack([label for _, label in rows])
        return latents[: len(indices)], None if labels is None else labels[: len(indices)]

    def prepare(self) -> None:
        """Encode the samples of all missing files."""
        self.source.prepare()
        for number, path in enumerate(self.files):
            if not path.is_file():
                self._write(number, path)

    @cached_property
    def files(self) -> list[Path]:
        """Paths of the files, in order; they may not exist yet."""
        about = repr((self.source.fingerprint(), self.encoder, self.per_file))
        key = hashlib.sha256(about.encode()).hexdigest()[:16]
        count = -(-len(self.source) // self.per_file)
        return [self.folder / f"{key}-{i:05d}-of-{count:05d}.safetensors" for i in range(count)]

    def contents(self) -> Iterator[bytes]:
        yield self.files[0].name.encode()

    @torch.no_grad()
    def _write(self, number: int, path: Path) -> None:
        from safetensors.torch import save

        first = number * self.per_file
        indices = torch.arange(first, min(first + self.per_file, len(self.source)))
        parts, labels = [], []
        for piece in indices.split(self.batch):
            pictures, classes = self.source.take(piece)
            latents = self.encode(pictures).detach().cpu()
            if len(latents) != len(piece):
                raise ValueError(f"{self.encoder} returned {len(latents)} latents for {len(piece)} pictures")
            parts.append(latents)
            labels += [] if classes is None else [classes]
        tensors = {"latents": torch.cat(parts).contiguous()} | ({"labels": torch.cat(labels)} if labels else {})
        content = save(tensors, {"about": json.dumps({"encoder": self.encoder, "first": first})})
        write_atomically(path, lambda file: file.write(content))

    def _row(self, index: int) -> tuple[Tensor, Tensor]:
        """Read a latent and its label from their file."""
        number, row = divmod(self._checked(index), self.per_file)
        if number not in self._open:
            if not self.files[number].is_file():
                self.prepare()
            self._open[number] = _opened(self.files[number])
        file = self._open[number]
        label = torch.zeros(()) if self.classes is None else file.get_slice("labels")[row : row + 1][0]
        return file.get_slice("latents")[row : row + 1][0], label


def _opened(path: Path) -> Any:
    """Open a file of latents.

    Raises:
        ValueError: with its path, if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: {flaw(path) or error}; delete it, and it will be written again") from error


def encoder_name(encode: nn.Module | Callable[[Tensor], Tensor]) -> str:
    """Identify an encoder: its qualified name and, for a network, a hash of its weights, layers and configs.

    Raises:
        ValueError: for lambdas, functools.partial and other objects whose name does not identify their behavior.
    """
    network = encode if isinstance(encode, nn.Module) else getattr(encode, "__self__", None)
    if isinstance(network, nn.Module):
        digest = hashlib.sha256()
        for key, value in network.state_dict().items():
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{key}{value.dtype}{tuple(value.shape)}".encode() + raw.numpy().tobytes())
        digest.update(MEMORY.sub("", repr(network)).encode())  # layers and their settings
        for key, module in network.named_modules():
            if isinstance(
                config := getattr(module, "config", None), Mapping
            ):  # diffusers' config, which contains the latents' scale
                entries = sorted((name, str(value)) for name, value in config.items() if not name.startswith("_"))
                digest.update(f"{key}{entries}".encode())
        method = "" if encode is network else f".{encode.__name__}"
        return f"{type(network).__module__}.{type(network).__qualname__}{method} {digest.hexdigest()[:16]}"
    name = getattr(encode, "__qualname__", "<object>")
    if "<" in name or network is not None:
        raise ValueError("the encoder's name does not identify its behavior: set LatentCache's name")
    return f"{encode.__module__}.{name}"
