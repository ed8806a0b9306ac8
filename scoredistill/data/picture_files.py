"""Decoding of picture files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoredistill.data.source import floats

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Suffixes of picture files, in lower case."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Pillow's formats that are allowed: some of its other readers execute programs such as Ghostscript."""
MOST_PIXELS = 2**26
"""Largest number of pixels that is decoded: a file of a few kilobytes can expand to gigabytes."""


@contextmanager
def opened(file: Path | bytes, name: str) -> Iterator[Image]:
    """Open a picture, which is decoded inside the `with` block.

    Args:
        file: path or content of the file.
        name: name of the picture in error messages.

    Raises:
        ValueError: with this name, if the picture cannot be read or has more than `MOST_PIXELS` pixels.
    """
    from PIL import Image as images

    try:
        with images.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            yield image
    # Pillow raises SyntaxError for a broken PNG.
    except (
        OSError,
        SyntaxError,
        ValueError,
        images.DecompressionBombError,
        images.DecompressionBombWarning,
    ) as error:
        raise ValueError(f"{name}: not a readable picture ({error}); repair or remove it") from error


def decode(file: Path | bytes, resolution: int | None, gray: bool, name: str) -> Tensor:
    """Read a picture and crop it to its central square.

    Args:
        file: path or content of the file.
        resolution: side of the result in pixels, resampled with antialiasing; None: neither cropped nor resampled.
        gray: one channel instead of three.
        name: name of the picture in error messages.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: with this name, if the picture cannot be read.
    """
    from PIL import ImageOps

    with opened(file, name) as image:
        return square(ImageOps.exif_transpose(image), resolution, gray)


def read_picture(path: Path) -> Tensor:
    """Read a complete picture, (3, H, W) in [-1, 1]; transparent pixels become white.

    Args:
        path: path of the file.

    Raises:
        ValueError: with the path, if the file does not exist or cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no picture {path}: give the path of a picture file")
    return floats(decode(path, None, False, str(path)))


def square(image: Image, resolution: int | None, gray: bool) -> Tensor:
    """Crop a picture to its central square; transparent pixels become white.

    Args:
        image: a picture with eight bits per channel.
        resolution: side in pixels; None: neither cropped nor resampled.
        gray: one channel instead of three.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: if the picture has more than eight bits per channel.
    """
    from PIL import Image as images

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has Pillow's mode {image.mode}; expected eight bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = images.alpha_composite(images.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if gray else "RGB")
    if resolution is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((resolution, resolution), images.Resampling.LANCZOS, box=box)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
