"""The z-buffer of `visibility` as a Warp kernel for CPU and CUDA, one thread per face.

Importing this module imports warp (package warp-lang) and silences its startup message. The kernel is compiled on
first use, which takes some seconds, and stored in Warp's cache in the user's cache folder; WARP_CACHE_PATH changes it.
"""
# mypy: disable-error-code="valid-type, operator, arg-type"
# Warp evaluates a kernel's annotations, so there is no `from __future__ import annotations` here.

import torch
import warp as wp
from torch import Tensor

from scoredistill.rendering.visibility import EMPTY, unpack

wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
wp.init()

# Without fused multiply-adds, an edge's function is exactly opposite on its two sides and equal to PyTorch's.
wp.set_module_options({"enable_backward": False, "fuse_fp": False})


@wp.kernel
def draw(
    corners: wp.array2d(dtype=wp.vec4),
    box: wp.array(dtype=wp.vec4i),
    picture: wp.array(dtype=wp.int64),
    height: int,
    width: int,
    buffer: wp.array(dtype=wp.int64),
) -> None:
    """Lower the key of each pixel inside a face, with the same formulas as `visibility.nearest_faces`."""
    face = wp.tid()
    a = corners[face, 0]
    b = corners[face, 1]
    c = corners[face, 2]
    place = box[face]
    for i in range(place[3]):
        row = place[1] + i
        ay = a[1] - float(row) * a[3]
        by = b[1] - float(row) * b[3]
        cy = c[1] - float(row) * c[3]
        for j in range(place[2]):
            column = place[0] + j
            ax = a[0] - float(column) * a[3]
            bx = b[0] - float(column) * b[3]
            cx = c[0] - float(column) * c[3]
            e0 = bx * cy - by * cx
            e1 = cx * ay - cy * ax
            e2 = ax * by - ay * bx
            total = e0 + e1 + e2
            sign = wp.sign(total)
            inside = total != 0.0 and e0 * sign >= 0.0 and e1 * sign >= 0.0 and e2 * sign >= 0.0
            if inside and (e0 * a[2] + e1 * b[2] + e2 * c[2]) / total >= 0.0:
                depth = (e0 * a[3] + e1 * b[3] + e2 * c[3]) / total
                key = (wp.int64(wp.cast(depth, wp.int32)) << wp.int64(32)) | wp.int64(face)
                pixel = (picture[face] * wp.int64(height) + wp.int64(row)) * wp.int64(width) + wp.int64(column)
                wp.atomic_min(buffer, pixel, key)


def nearest_faces(corners: Tensor, box: Tensor, picture: Tensor, pictures: int, height: int, width: int) -> Tensor:
    """The visible face of each pixel, as in `visibility.nearest_faces`, in single precision."""
    buffer = torch.full((pictures * height * width,), EMPTY, device=corners.device)
    arrays = (
        wp.from_torch(corners.float().contiguous(), dtype=wp.vec4),
        wp.from_torch(box.int().contiguous(), dtype=wp.vec4i),
        wp.from_torch(picture.contiguous()),
    )
    stream = wp.stream_from_torch(torch.cuda.current_stream(corners.device)) if corners.is_cuda else None
    inputs = [*arrays, height, width, wp.from_torch(buffer)]
    wp.launch(draw, dim=len(corners), inputs=inputs, device=wp.device_from_torch(corners.device), stream=stream)
    return unpack(buffer).view(pictures, height, width)
