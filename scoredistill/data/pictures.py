"""From a picture's file to a square of pixels."""

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
"""Endings of the files that count as pictures, in lower case."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What Pillow may take a file for: some of its other readers run programs such as Ghostscript."""
MOST_PIXELS = 2**26
"""Pixels of the largest picture that is decoded: a file of some kilobytes can hold gigabytes."""


@contextmanager
def opened(file: Path | bytes, name: str) -> Iterator[Image]:
    """A picture that is decoded as far as the `with` block asks for.

    Args:
        file: a path, or the file's content.
        name: what to call the picture in an error.

    Raises:
        ValueError: that names the picture, if it cannot be read or has more than `MOST_PIXELS`.
    """
    from PIL import Image as images

    try:
        with images.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, of which {MOST_PIXELS:,} are allowed")
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
    """Read a picture and cut its central square.

    Args:
        file: a path, or the file's content.
        resolution: side of the result in pixels, resampled with antialiasing; None: as it is, not cut.
        gray: one channel instead of three.
        name: what to call the picture in an error.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: that names the picture, if it cannot be read.
    """
    from PIL import ImageOps

    with opened(file, name) as image:
        return square(ImageOps.exif_transpose(image), resolution, gray)


def read_picture(path: Path) -> Tensor:
    """A whole picture, (3, H, W) in [-1, 1]; transparent parts are white.

    Args:
        path: its file.

    Raises:
        ValueError: that names the file, if it is not there or cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no picture {path}: give the path of one")
    return floats(decode(path, None, False, str(path)))


def square(image: Image, resolution: int | None, gray: bool) -> Tensor:
    """The central square of a picture, transparent parts on white.

    Args:
        image: of eight bits a channel.
        resolution: side in pixels; None: the whole picture as it is.
        gray: one channel instead of three.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: for pictures of more than eight bits a channel.
    """
    from PIL import Image as images

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, and need eight bits a channel")
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
