"""A mesh with a texture, and its files."""

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
    """A mesh whose colors are a picture.

    Args:
        mesh: the surface; colors at its vertices are not used.
        layout: where its faces lie in the texture.
        texture: (T, T, 3) uint8 display values, top row first.
    """

    mesh: Mesh
    layout: Unwrapped
    texture: Tensor

    @classmethod
    def bake(cls, mesh: Mesh, colors: Colors, size: int) -> TexturedMesh:
        """Unwrap a mesh and bake a texture for it.

        Args:
            mesh: of at least one face.
            colors: of points (P, 3) on the surface, in [-1, 1].
            size: height and width of the texture, >= 1.

        Raises:
            ImportError: if xatlas is not installed.
            ValueError: if the texture is too small for any color.
        """
        layout = unwrap(mesh, size)
        return cls(mesh, layout, bake(mesh, layout, colors, size))

    def save(self, path: str | Path) -> None:
        """Write the mesh; the suffix names the format. A reader never sees half a file.

        GLB holds the picture itself. OBJ is three files, the others .mtl and .png, written together or not at all;
        where its name has other characters than letters, digits, dots and hyphens, which not every reader takes in a
        reference, theirs has none (`companions`). The normals are smooth; axes and units are as in `Mesh.save`.

        Args:
            path: ends in .glb or .obj.

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
            words = f"newmtl baked\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n"
            write_together({picture: self._png(), material: words.encode(), path: self._obj(material.name).encode()})
        else:
            raise ValueError(f"a textured mesh's file ends in {', '.join(TEXTURED_SUFFIXES)}; got {path.name!r}")

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
        """Seams split only the places in the texture, so that the surface stays closed. OBJ's v runs upwards."""
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
    """The .mtl and the .png of a textured .obj."""
    stem = path.stem
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", stem):
        stem = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}_{zlib.crc32(stem.encode()):08x}"
    return path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}.png")
