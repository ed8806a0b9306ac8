"""Meshes with a texture, and their files."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from torch import Tensor

from scoredistill.files import write_atomically, write_together
from scoredistill.rendering.assets.baking import Colors, bake
from scoredistill.rendering.assets.unwrapping import Unwrapped, unwrap
from scoredistill.rendering.gltf import to_glb
from scoredistill.rendering.mesh import Mesh

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
