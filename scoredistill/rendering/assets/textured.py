"""Textured meshes: unwrapping of the surface, baking of its colors, and files."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from scoredistill.files import write_atomically, write_together
from scoredistill.rendering.gltf import to_glb
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.turntable import to_bytes

_GAP = 4
"""Texels between charts: each chart is extended by one, and bilinear filtering reads one further."""


@dataclass(frozen=True)
class Unwrapped:
    """Positions of a mesh's faces in a texture.

    Args:
        source: (N',) the mesh's vertex for each new vertex; vertices on seams are duplicated.
        faces: (F, 3) int64 indices of the new vertices, in the order of the mesh's faces.
        uv: (N', 2) in [0, 1], from the texture's upper left corner.
    """

    source: Tensor
    faces: Tensor
    uv: Tensor


def unwrap(mesh: Mesh, size: int) -> Unwrapped:
    """Cut a mesh into charts with xatlas and pack them at one scale without overlaps.

    Args:
        mesh: a mesh with at least one face.
        size: height and width of the texture in texels, which determines the gaps between charts.

    Raises:
        ImportError: if xatlas is not installed.
    """
    try:
        import xatlas
    except ImportError as error:
        raise ImportError("a texture needs xatlas: install scoredistill[mesh]") from error
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.detach().cpu().float().numpy(), mesh.faces.cpu().int().numpy().astype("uint32"))
    packing = xatlas.PackOptions()
    packing.resolution = size
    packing.padding = _GAP
    atlas.generate(pack_options=packing)
    source, faces, uv = (
        torch.tensor(part.astype(kind)) for part, kind in zip(atlas[0], ("i8", "i8", "f8"), strict=True)
    )
    # xatlas does not match the size exactly; the longer side of its result becomes the texture's side.
    sides = torch.tensor([atlas.width, atlas.height], dtype=torch.float64)
    return Unwrapped(source, faces, uv * sides / sides.max())


Colors = Callable[[Tensor], Tensor]
"""From points (P, 3) on a surface in world units to colors (P, 3) in [-1, 1]."""

_BLEED = 1.0
"""Texels by which a chart is extended in the planes of its border faces, because bilinear filtering reads that far."""

_PAIRS = 2**22
"""Maximum number of pairs of a face and a texel in memory, about 500 MB."""

_POINTS = 2**18
"""Maximum number of points in one evaluation of the colors."""


@torch.no_grad()
def bake(mesh: Mesh, layout: Unwrapped, colors: Colors, size: int) -> Tensor:
    """Bake a texture: each texel has the color of the surface point at its center.

    Charts are extended by one texel. Every other texel has the color of the nearest texel of a chart, so that neither
    bilinear filtering nor mipmaps mix in unrelated colors.

    Args:
        mesh: the surface.
        layout: positions of its faces in the texture.
        colors: from points (P, 3) in world units to colors (P, 3) in [-1, 1].
        size: height and width T in texels.

    Returns:
        (T, T, 3) uint8 display values, top row first.

    Raises:
        ValueError: if the texture is so small that no texel's center is in a chart.
    """
    from scipy.ndimage import distance_transform_edt

    texel, face, weight = _texels(layout.uv[layout.faces] * size, size)
    if len(texel) == 0:
        raise ValueError(f"a texture of {size} x {size} texels is too small for this mesh: increase its size")
    corners = mesh.vertices.detach().cpu().double()[layout.source[layout.faces]]
    points = torch.einsum("pc,pcd->pd", weight, corners[face]).to(mesh.vertices)
    values = torch.cat([colors(part).detach().cpu().float() for part in points.split(_POINTS)])
    image = torch.zeros(size * size, 3)
    image[texel] = values.to(image)
    empty = torch.ones(size * size, dtype=torch.bool).index_fill(0, texel, False).view(size, size)
    row, column = distance_transform_edt(empty.numpy(), return_distances=False, return_indices=True)
    filled = image.view(size, size, 3)[torch.from_numpy(row).long(), torch.from_numpy(column).long()]
    return to_bytes(filled.movedim(-1, 0))


def _texels(triangles: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The face that contains each texel's center, or the nearest face within the bleed.

    Args:
        triangles: (F, 3, 2) corners in texels.
        size: T.

    Returns:
        texel (P,) row T + column, ascending; face (P,); barycentric coordinates (P, 3), outside [0, 1] in the bleed.
    """
    depth = triangles.new_full((size * size,), -torch.inf)
    owner = torch.full((size * size,), -1, dtype=torch.long)
    for face, texel in _candidates(triangles, size):
        inside = _depth(triangles[face], _centers(texel, size))
        near = inside > -_BLEED
        face = face[near]
        texel = texel[near]
        inside = inside[near]
        depth = depth.scatter_reduce(0, texel, inside, "amax")
        best = inside == depth[texel]
        owner[texel[best]] = face[best]
    texel = (owner >= 0).nonzero()[:, 0]
    return texel, owner[texel], _barycentric(triangles[owner[texel]], _centers(texel, size))


def _candidates(triangles: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of pairs (face, texel): all centers in the faces' bounding boxes, enlarged by the bleed."""
    low = (triangles.amin(1) - _BLEED - 0.5).ceil().long().clamp(0, size - 1)
    high = (triangles.amax(1) + _BLEED - 0.5).floor().long().clamp(0, size - 1)
    flat = _cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) == 0
    sides = torch.where(flat[:, None], 0, high - low + 1)  # a degenerate face has no interior
    counts = sides.prod(1)
    for block in _blocks(counts):
        face = block.repeat_interleave(counts[block])
        begin = counts[block].cumsum(0) - counts[block]
        place = torch.arange(len(face)) - begin.repeat_interleave(counts[block])
        column = low[face, 0] + place % sides[face, 0]
        yield face, (low[face, 1] + place // sides[face, 0]) * size + column


def _blocks(counts: Tensor) -> list[Tensor]:
    """Blocks of consecutive faces with about `_PAIRS` pairs each."""
    group = (counts.cumsum(0) - 1).clamp(min=0) // _PAIRS
    return list(torch.arange(len(counts)).split(torch.bincount(group).tolist()))


def _centers(texel: Tensor, size: int) -> Tensor:
    return torch.stack([texel % size, texel // size], dim=-1) + 0.5


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _barycentric(triangles: Tensor, points: Tensor) -> Tensor:
    """(P, 3) coordinates of points (P, 2) in triangles (P, 3, 2)."""
    corner, following = triangles.roll(-1, dims=1), triangles.roll(-2, dims=1)
    areas = _cross(following - corner, points[:, None] - corner)
    return areas / areas.sum(1, keepdim=True)


def _depth(triangles: Tensor, points: Tensor) -> Tensor:
    """(P,) distance in texels from a point to the nearest line through a side of its triangle, negative outside."""
    sides = (triangles.roll(-2, dims=1) - triangles.roll(-1, dims=1)).norm(dim=-1)
    heights = _cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]).abs()[:, None] / sides
    return (_barycentric(triangles, points) * heights).amin(1)


TEXTURED_SUFFIXES = (".glb", ".obj")


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with a texture.

    Args:
        mesh: the surface; vertex colors are not used.
        layout: positions of its faces in the texture.
        texture: (T, T, 3) uint8 display values, top row first.
    """

    mesh: Mesh
    layout: Unwrapped
    texture: Tensor

    @classmethod
    def bake(cls, mesh: Mesh, colors: Colors, size: int) -> TexturedMesh:
        """Unwrap a mesh and bake a texture for it.

        Args:
            mesh: a mesh with at least one face.
            colors: from points (P, 3) on the surface to colors (P, 3) in [-1, 1].
            size: height and width of the texture in texels, >= 1.

        Raises:
            ImportError: if xatlas is not installed.
            ValueError: if the texture is too small.
        """
        layout = unwrap(mesh, size)
        return cls(mesh, layout, bake(mesh, layout, colors, size))

    def save(self, path: str | Path) -> None:
        """Write the mesh atomically, in the format of the suffix.

        A GLB file contains the picture. An OBJ file has two companions, .mtl and .png, and the three are written
        together or not at all. If its name has characters other than letters, digits, dots, underscores and hyphens,
        which some readers do not accept in references, the companions' names replace them (`companions`). The normals
        are smooth; axes and units are those of `Mesh.save`.

        Args:
            path: file name that ends in .glb or .obj.

        Raises:
            ValueError: for another suffix.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".glb":
            content = self._glb()
            write_atomically(path, lambda file: file.write(content))
        elif kind == ".obj":
            material, picture = companions(path)
            text = f"newmtl baked\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n"
            write_together({picture: self._png(), material: text.encode(), path: self._obj(material.name).encode()})
        else:
            raise ValueError(
                f"the name of a textured mesh file must end in {', '.join(TEXTURED_SUFFIXES)}; got {path.name!r}"
            )

    def _png(self) -> bytes:
        from PIL import Image

        file = BytesIO()
        Image.fromarray(self.texture.cpu().numpy()).save(file, format="PNG")
        return file.getvalue()

    def _glb(self) -> bytes:
        mesh, layout = self.mesh, self.layout
        vertices, normals = mesh.vertices.cpu()[layout.source], mesh.normals.cpu()[layout.source]
        picture = self._png()
        return to_glb(vertices, layout.faces, normals, uv=layout.uv, texture=picture, double_sided=not mesh.watertight)

    def _obj(self, material: str) -> str:
        """Only texture coordinates are split at seams, so that the surface stays closed. OBJ's v axis points up."""
        mesh, layout = self.mesh, self.layout
        place = (mesh.faces.cpu() + 1).tolist()
        corner = (layout.faces + 1).tolist()
        lines = [f"mtllib {material}"]
        lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.normals.tolist()]
        lines += [f"vt {u:.7f} {1 - v:.7f}" for u, v in layout.uv.tolist()]
        lines.append("usemtl baked")
        for vertices, texels in zip(place, corner, strict=True):
            lines.append("f " + " ".join(f"{a}/{b}/{a}" for a, b in zip(vertices, texels, strict=True)))
        return "\n".join(lines) + "\n"


def companions(path: Path) -> tuple[Path, Path]:
    """Paths of the .mtl and the .png file of a textured .obj file."""
    stem = path.stem
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", stem):
        stem = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}_{zlib.crc32(stem.encode()):08x}"
    return path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}.png")
