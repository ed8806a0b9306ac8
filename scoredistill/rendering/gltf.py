"""Writer of GLB files, glTF 2.0 in one binary file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from scoredistill.version import __version__

_ASSET = {
    "version": "2.0",
    "generator": f"scoredistill {__version__}",
    "extras": {"units": "meters; the object lies in a box of side 2", "up": "+y", "front": "+z"},
}
_COMPONENTS = {torch.float32: 5126, torch.int32: 5125}  # FLOAT, UNSIGNED_INT
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}
_VERTICES, _INDICES = 34962, 34963  # ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER
_LINEAR = 9729
_LINEAR_MIPMAP_LINEAR = 9987
_CLAMP_TO_EDGE = 33071


def to_linear(display: Tensor) -> Tensor:
    """sRGB display values in [0, 1] to linear light in [0, 1], by the curve of IEC 61966-2-1."""
    return torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def to_display(linear: Tensor) -> Tensor:
    """The inverse of `to_linear`."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


def to_glb(
    vertices: Tensor,
    faces: Tensor,
    normals: Tensor,
    colors: Tensor | None = None,
    uv: Tensor | None = None,
    texture: bytes | None = None,
    double_sided: bool = False,
) -> bytes:
    """One mesh as the content of a .glb file, with a rough, non-metallic material.

    glTF's axes are the world's, y up and front +z, and a world unit is a meter. The colors passed here are display
    (sRGB) values. A base color texture stores them unchanged; vertex colors in glTF are linear, so they are converted.

    glTF 2.0 specification, Khronos Group (2021).

    Args:
        vertices: (N, 3).
        faces: (F, 3) indices, counter-clockwise seen from outside.
        normals: (N, 3) unit normals at the vertices.
        colors: (N, 3) display colors in [0, 1], or None.
        uv: (N, 2) texture coordinates in [0, 1] from the upper left corner, or None.
        texture: content of a PNG file; needs `uv`.
        double_sided: whether back faces are visible, for meshes with holes.
    """
    attributes = {"POSITION": vertices.float(), "NORMAL": normals.float()}
    if uv is not None:
        attributes["TEXCOORD_0"] = uv.float()
    if colors is not None:
        attributes["COLOR_0"] = to_linear(colors.float().clamp(0, 1))
    pieces = [_bytes(values) for values in (*attributes.values(), faces.int())] + ([] if texture is None else [texture])
    document = {
        "asset": _ASSET,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {name: i for i, name in enumerate(attributes)},
                        "indices": len(attributes),
                        "material": 0,
                    }
                ]
            }
        ],
        "materials": [_material(texture is not None, double_sided)],
        "accessors": _accessors(attributes, faces),
        "bufferViews": _views(pieces, len(attributes)),
        "buffers": [{"byteLength": sum(_padded(len(piece)) for piece in pieces)}],
    }
    if texture is not None:
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["images"] = [{"bufferView": len(attributes) + 1, "mimeType": "image/png"}]
        filters = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR}
        document["samplers"] = [{**filters, "wrapS": _CLAMP_TO_EDGE, "wrapT": _CLAMP_TO_EDGE}]
    return _container(json.dumps(document, separators=(",", ":"), allow_nan=False).encode(), pieces)


def _material(textured: bool, double_sided: bool) -> dict[str, object]:
    surface: dict[str, object] = {"metallicFactor": 0, "roughnessFactor": 1}
    if textured:
        surface["baseColorTexture"] = {"index": 0}
    return {"pbrMetallicRoughness": surface} | ({"doubleSided": True} if double_sided else {})


def _accessors(attributes: Mapping[str, Tensor], faces: Tensor) -> list[dict[str, object]]:
    """glTF accessors in the order of the pieces. glTF requires the bounds of positions."""
    accessors: list[dict[str, object]] = []
    for i, values in enumerate((*attributes.values(), faces.int().reshape(-1, 1))):
        kind = _KINDS[values.shape[1]]
        component = _COMPONENTS[values.dtype]
        accessors.append({"bufferView": i, "componentType": component, "count": len(values), "type": kind})
    position = attributes["POSITION"]
    accessors[0] |= {"min": position.amin(0).tolist(), "max": position.amax(0).tolist()}
    return accessors


def _views(pieces: list[bytes], vertex_pieces: int) -> list[dict[str, int]]:
    """Offsets and lengths of the pieces: attributes, then indices, then the picture, if any."""
    views = []
    offset = 0
    for i, piece in enumerate(pieces):
        view = {"buffer": 0, "byteOffset": offset, "byteLength": len(piece)}
        if i <= vertex_pieces:
            view["target"] = _VERTICES if i < vertex_pieces else _INDICES
        views.append(view)
        offset += _padded(len(piece))
    return views


def _container(document: bytes, pieces: list[bytes]) -> bytes:
    """Header, JSON chunk and binary chunk, each padded to a multiple of four bytes."""
    text = document.ljust(_padded(len(document)), b" ")
    data = b"".join(piece.ljust(_padded(len(piece)), b"\0") for piece in pieces)
    header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(data))
    return b"".join(
        [header, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(data), b"BIN\0"), data]
    )


def _padded(length: int) -> int:
    return -(-length // 4) * 4


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().numpy().tobytes()
