"""Tiny picture files for tests."""

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def picture(level: int, side: tuple[int, int] = (8, 8)) -> Image.Image:
    """A picture of one color: red at the level, green and blue 0. `side` is (width, height)."""
    return Image.new("RGB", side, (level, 0, 0))


def content(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def save(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(level).save(path)


def levels(samples: Tensor) -> list[int]:
    """The red levels of one-colored pictures, which identify them."""
    return ((samples[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
