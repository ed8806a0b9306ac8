"""Reading triangles from mesh files."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoredistill.rendering.gltf import to_display


def read_triangles(path: Path, kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """All triangles of a file, in the file's axes, with coincident vertices merged.

    Args:
        path: the file.
        kind: glb, obj, ply or stl.

    Returns:
        vertices (N, 3) float32, faces (F, 3) int64, and display colors (N, 3) in [0, 1], or None unless all parts have
        vertex colors.

    Raises:
        ValueError: if the file has no triangles.
    """
    import trimesh

    # Textures are removed first: trimesh would read pictures of any format from any path that a material names.
    if kind == "glb":
        scene: Any = trimesh.load_scene(io.BytesIO(_without_pictures(path.read_bytes())), file_type=kind)
    else:
        scene = trimesh.load_scene(path, file_type=kind, skip_materials=True)
    placed = [(matrix, scene.geometry[name]) for matrix, name in map(scene.graph.get, scene.graph.nodes_geometry)]
    parts = [(matrix, part) for matrix, part in placed if isinstance(part, trimesh.Trimesh)]
    if not parts:
        raise ValueError(f"{path} has no triangles")
    corners = [torch.tensor(trimesh.transform_points(part.vertices, matrix)).float() for matrix, part in parts]
    first = torch.tensor([0, *map(len, corners)]).cumsum(0)
    faces = torch.cat([torch.tensor(part.faces).long() + first[i] for i, (_, part) in enumerate(parts)])
    vertices, place = torch.cat(corners).unique(dim=0, return_inverse=True)
    colors = [color for _, part in parts if (color := _colors(part.visual)) is not None]
    if len(colors) < len(parts):
        return vertices, place[faces], None
    merged = torch.empty_like(vertices).index_copy(0, place, torch.cat(colors))
    return vertices, place[faces], to_display(merged) if kind == "glb" else merged


def _without_pictures(content: bytes) -> bytes:
    """A GLB file without the textures of its materials. Vertex colors are unchanged.

    Raises:
        ValueError: if it is not a GLB file.
    """
    if content[:4] != b"glTF" or content[16:20] != b"JSON":
        raise ValueError("it is not a GLB file")
    (length,) = struct.unpack("<I", content[12:16])
    scene = json.loads(content[20 : 20 + length])
    for part in ("images", "textures", "samplers"):
        scene.pop(part, None)
    scene["materials"] = [_plain(material) for material in scene.get("materials", ())]
    if not scene["materials"]:
        del scene["materials"]
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + length :]
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    return head + text + rest


def _plain(material: dict[str, Any]) -> dict[str, Any]:
    """A material without references to pictures."""
    kept = {key: value for key, value in material.items() if not key.endswith("Texture") and key != "extensions"}
    return {key: _plain(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _colors(visual: Any) -> Tensor | None:
    """(N, 3) vertex colors in [0, 1] of a trimesh visual, or None."""
    if visual.kind == "vertex":
        return torch.tensor(visual.vertex_colors[:, :3], dtype=torch.float32) / 255
    # trimesh treats a mesh with a glTF material as textured, and stores vertex colors as an attribute.
    color = getattr(visual, "vertex_attributes", {}).get("color")
    return None if color is None else torch.tensor(color[:, :3], dtype=torch.float32)
