"""A latent cache depends on every sample of its source, and on the encoder."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from scoredistill.data import GalleryImages, HuggingFaceImages, ImageFolder, LatentCache, WebDatasetShards
from scoredistill.data.latents import encoder_name
from scoredistill.data.source import ImageSource

COUNT, CHANGED = 60, 30
"""Number of pictures, and the changed one, which is not among those that a fingerprint samples."""


class Counted(nn.Module):
    """An encoder to the mean color that counts pictures."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(3, eps=scale)
        self.config = {"scaling_factor": scale, "_name_or_path": "anywhere"}
        self.rows = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.rows += len(pictures)
        return pictures.mean((2, 3))


def bitmap(shade: int) -> bytes:
    """A picture file whose size does not depend on its content."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 255 - shade)).save(content, "BMP")
    return content.getvalue()


def as_folder(root: Path, shades: list[int], labels: list[int]) -> ImageSource:
    for index, (shade, label) in enumerate(zip(shades, labels, strict=True)):
        path = root / f"class_{label}" / f"{index:03d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bitmap(shade))
        os.utime(path, ns=(0, 0))
    return ImageFolder(root, 8)


def as_shard(root: Path, shades: list[int], labels: list[int]) -> ImageSource:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "data.tar", "w") as tar:
        for index, (shade, label) in enumerate(zip(shades, labels, strict=True)):
            for ending, content in (("bmp", bitmap(shade)), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{index:03d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    os.utime(root / "data.tar", ns=(0, 0))
    return WebDatasetShards(str(root / "data.tar"), 8)


def as_table(root: Path, shades: list[int], labels: list[int]) -> ImageSource:
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": bitmap(shade), "path": None} for shade in shades]
    table = datasets.Dataset.from_dict({"image": pictures, "label": labels})
    table.cast_column("image", datasets.Image()).save_to_disk(str(root))
    return HuggingFaceImages(root, resolution=8)


KINDS: dict[str, Callable[[Path, list[int], list[int]], ImageSource]] = {
    "folder": as_folder,
    "shard": as_shard,
    "table": as_table,
}
SHADES, LABELS = [4 * index for index in range(COUNT)], [index % 2 for index in range(COUNT)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["nothing", "a picture", "a label"])
def test_a_cache_is_rebuilt_after_any_change(tmp_path, kind, change):
    first, second = Counted(), Counted()
    LatentCache(KINDS[kind](tmp_path / "before", SHADES, LABELS), first, tmp_path / "cache").prepare()
    shades, labels = list(SHADES), list(LABELS)
    if change == "a picture":
        shades[CHANGED] = 255
    if change == "a label":
        labels[CHANGED] = 1 - labels[CHANGED]
    source = KINDS[kind](tmp_path / "after", shades, labels)
    cache = LatentCache(source, second, tmp_path / "cache")
    latents, known = cache.all()
    assert (first.rows, second.rows) == (COUNT, 0 if change == "nothing" else COUNT)
    pictures, true = source.all()
    torch.testing.assert_close(latents, pictures.mean((2, 3)))
    assert torch.equal(known, true)


def test_a_changed_file_with_the_same_name_size_and_time_is_detected(tmp_path):
    source = as_folder(tmp_path / "data", SHADES, LABELS)
    LatentCache(source, Counted(), tmp_path / "cache").prepare()
    path = source.files[CHANGED][0]  # type: ignore[attr-defined]
    before = path.stat()
    path.write_bytes(bitmap(255))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    latents, _ = LatentCache(ImageFolder(tmp_path / "data", 8), Counted(), tmp_path / "cache").all()
    torch.testing.assert_close(latents[CHANGED], torch.tensor([1.0, -1.0, -1.0]))


def test_settings_of_a_source_belong_to_the_key(tmp_path):
    settings = {"prompts": ["a mug"], "resolution": 8, "count": 40}
    changes = [{}, {"seed": 1}, {"fov": 41.0}, {"background": (0.7, 0.7, 0.69)}, {"azimuth": (0.0, 359.0)}]
    prints = [GalleryImages(**settings | change).fingerprint() for change in changes]
    assert len(set(prints)) == len(changes)
    assert GalleryImages(**settings).fingerprint() == prints[0]
    as_folder(tmp_path, SHADES, LABELS)
    ways = [ImageFolder(tmp_path, 8), ImageFolder(tmp_path, 4), ImageFolder(tmp_path, 8, gray=True)]
    assert len({source.fingerprint() for source in ways}) == len(ways)


def test_settings_of_an_encoder_belong_to_the_key():
    assert encoder_name(Counted()) == encoder_name(Counted())
    moved = Counted()
    moved.config["_name_or_path"] = "elsewhere"
    assert encoder_name(Counted()) == encoder_name(moved)
    assert encoder_name(Counted()) != encoder_name(Counted(0.5))
