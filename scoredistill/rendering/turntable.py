"""Turntable cameras, picture grids, and files of pictures and animations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from scoredistill.files import write_atomically
from scoredistill.rendering.camera import Camera

ANIMATION_SUFFIXES = (".webp", ".gif", ".mp4")


def turntable_cameras(
    frames: int = 36, elevation: float = 15.0, radius: float = 2.6, fov: float = 41.5, azimuth: float = 0.0
) -> Camera:
    """Cameras evenly spaced on a circle around the origin, so that the last frame leads into the first.

    Args:
        frames: number of cameras, >= 1.
        elevation: degrees.
        radius: distance from the origin in world units; the object is in [-1, 1]^3.
        fov: vertical field of view in degrees.
        azimuth: azimuth of the first camera in degrees; 0 sees the front.

    Raises:
        ValueError: if there is no frame.
    """
    if frames < 1:
        raise ValueError(f"a turntable needs at least one frame, got {frames}")
    around = azimuth + 360 * torch.arange(frames) / frames
    elevations, radii, fovs = (torch.full((frames,), float(value)) for value in (elevation, radius, fov))
    return Camera.orbit(around, elevations, radii, fovs)


def to_bytes(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] to 8-bit display values, clamped: (..., 3, H, W) to (..., H, W, 3) uint8 on the CPU."""
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu()


def picture_grid(images: Tensor, columns: int) -> Tensor:
    """Pictures in a grid, row by row, with a white border of two pixels around each.

    Args:
        images: (N, 3, H, W) in [-1, 1]; one channel is rendered as gray.
        columns: pictures per row, >= 1.

    Returns:
        (H', W', 3) uint8.
    """
    from torchvision.utils import make_grid  # type: ignore[import-untyped]  # takes a second

    return to_bytes(make_grid(images.detach().float().cpu(), nrow=columns, padding=2, pad_value=1.0))


def save_picture(image: Tensor, path: str | Path) -> None:
    """Write a picture atomically.

    Args:
        image: (H, W, 3) uint8.
        path: file name that ends in .png, .jpg, .webp or another suffix that Pillow supports.

    Raises:
        ValueError: for another suffix, or another shape or dtype.
    """
    from PIL import Image

    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"a picture must be (H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ValueError(f"the suffix of {path.name!r} is not a supported picture format; use .png")
    write_atomically(path, lambda file: Image.fromarray(image.cpu().numpy()).save(file, format=kind))


def save_animation(frames: Tensor, path: str | Path, fps: int = 15) -> None:
    """Write an animation atomically, in the format of the suffix. WebP and GIF animations loop forever.

    Args:
        frames: (T, H, W, 3) uint8.
        path: file name that ends in .webp (small and fast), .gif or .mp4.
        fps: frames per second, >= 1.

    Raises:
        ValueError: for another suffix, or another shape or dtype.
        ImportError: if an MP4 is requested and PyAV is not installed.
    """
    path = Path(path)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"an animation must be (T, H, W, 3) uint8, got {tuple(frames.shape)} {frames.dtype}")
    writers: dict[str, Callable[[BinaryIO, Tensor, int], None]] = dict(
        zip(ANIMATION_SUFFIXES, (_write_webp, _write_gif, _write_mp4), strict=True)
    )
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ValueError(
            f"the name of an animation file must end in {', '.join(ANIMATION_SUFFIXES)}; got {path.name!r}"
        )
    write_atomically(path, lambda file: write(file, frames.cpu(), fps))


def _write_webp(file: BinaryIO, frames: Tensor, fps: int) -> None:
    _write_pillow(file, frames, "WEBP", {"duration": round(1000 / fps), "quality": 85, "method": 4})


def _write_gif(file: BinaryIO, frames: Tensor, fps: int) -> None:
    # GIF durations are in hundredths of a second, and viewers slow down frames shorter than two of them.
    _write_pillow(file, frames, "GIF", {"duration": 10 * max(2, round(100 / fps)), "optimize": False, "disposal": 1})


def _write_pillow(file: BinaryIO, frames: Tensor, kind: str, options: dict[str, object]) -> None:
    from PIL import Image

    first, *rest = (Image.fromarray(frame.numpy()) for frame in frames)
    first.save(file, format=kind, save_all=True, append_images=rest, loop=0, **options)


def _write_mp4(file: BinaryIO, frames: Tensor, fps: int) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError("MP4 needs PyAV: install scoredistill[video], or write .webp instead") from error
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]  # yuv420p halves both sides
    with av.open(file, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20"})
        stream.height = frames.shape[1]
        stream.width = frames.shape[2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame.contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
