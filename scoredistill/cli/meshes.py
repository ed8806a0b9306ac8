"""Mesh files of particles: the options, the preparation of the meshes, and the writing."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.cli.options import finite, integer
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.assets import TexturedMesh, count_pieces, decimate, keep_largest
from scoredistill.rendering.assets.textured import TEXTURED_SUFFIXES, companions
from scoredistill.rendering.mesh import SUFFIXES, Mesh, NoSurfaceError

TEXTURE = 1024
"""Default height and width of a texture."""
COARSEST = 8
"""Minimum number of lattice points along an axis; a coarser lattice can miss the object."""


@dataclass(frozen=True)
class MeshFiles:
    """The mesh files of each particle.

    Args:
        kinds: formats: glb, obj, ply, stl.
        texture: height and width of the texture for glb and obj; 0: colors at the vertices instead.
        faces: maximum number of faces of a mesh; None: no limit.
        largest: whether only the largest piece is kept.
        resolution: lattice points along each axis; None: the generator's default.
        threshold: value of the generator's field at the surface; None: the generator's default.
    """

    kinds: tuple[str, ...]
    texture: int
    faces: int | None
    largest: bool
    resolution: int | None
    threshold: float | None

    @classmethod
    def of(cls, generator: SceneGenerator, options: argparse.Namespace) -> MeshFiles:
        """The mesh files that the options request.

        Raises:
            UsageError: if the scenes do not support an option, or a library is missing.
        """
        texture = _texture(generator, options)
        if options.faces is not None and importlib.util.find_spec("fast_simplification") is None:
            raise UsageError("--faces needs fast-simplification: install scoredistill[mesh]")
        kinds = tuple(dict.fromkeys(options.format))
        return cls(kinds, texture, options.faces, options.keep_largest, options.resolution, options.threshold)

    def names(self, particle: int) -> list[str]:
        """The names of the files."""
        names = [f"particle_{particle}.{kind}" for kind in self.kinds]
        if self.texture and "obj" in self.kinds:
            names += [path.name for path in companions(Path(f"particle_{particle}.obj"))]
        return names

    def write(self, generator: SceneGenerator, particle: int, folder: Path) -> str:
        """Write the files of a particle, and return a description of its mesh.

        Raises:
            NoSurfaceError: if there is no surface.
            ValueError: if a vertex is not finite.
        """
        mesh = _sound(generator.mesh(particle, self.resolution, self.threshold), particle)
        colors = None if generator.latents is not None else partial(generator.color, particle=particle)
        pieces = count_pieces(mesh)
        total = len(mesh.faces)
        mesh = keep_largest(mesh) if self.largest else mesh
        mesh = mesh if self.faces is None else decimate(mesh, self.faces)
        if colors is not None:
            mesh = replace(mesh, colors=((colors(mesh.vertices) + 1) / 2).clamp(0, 1))
        textured = TexturedMesh.bake(mesh, colors, self.texture) if self.texture and colors is not None else None
        for kind in self.kinds:
            written = mesh if textured is None or f".{kind}" not in TEXTURED_SUFFIXES else textured
            written.save(folder / f"particle_{particle}.{kind}")
        return self._description(mesh, total, pieces)

    def _description(self, mesh: Mesh, total: int, pieces: int) -> str:
        words = [f"{len(mesh.faces)} faces" + (f" of {total}" if len(mesh.faces) < total else "")]
        words.append("watertight" if mesh.watertight else "not watertight")
        if pieces > 1:
            kept = "only the largest is written" if self.largest else "--keep-largest writes only the largest"
            words.append(f"{pieces} pieces ({kept})")
        if self.texture:
            words.append(f"a texture of {self.texture} x {self.texture}")
        return ", ".join(words)


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """The options that `MeshFiles.of` reads."""
    kinds = [suffix[1:] for suffix in SUFFIXES]
    add = parser.add_argument
    add(
        "--format",
        nargs="*",
        default=["glb"],
        choices=kinds,
        help="mesh formats: glb (default), obj, ply, stl; without a value no meshes. glb contains its texture, obj "
        "has it in separate .mtl and .png files; ply has vertex colors, stl no colors",
    )
    add(
        "--texture",
        type=integer(0, 16384),
        help=f"height and width of the texture of glb and obj in texels, {TEXTURE} by default; 0: vertex colors. "
        "Takes seconds for 20,000 faces and half a minute for 75,000: see --faces. Needs scoredistill[mesh]",
    )
    add(
        "--faces",
        type=integer(4, 2**31 - 1),
        help="maximum number of faces of a mesh; unlimited by default. Needs scoredistill[mesh]",
    )
    add(
        "--keep-largest",
        action="store_true",
        help="keep only the largest connected piece of a mesh, without floating and enclosed pieces",
    )
    add(
        "--resolution",
        type=integer(COARSEST, 2048),
        help=f"lattice points along each axis of the mesh, at least {COARSEST}; by default the generator's",
    )
    add(
        "--threshold",
        type=finite,
        help="density at the surface (signed distance for a DMTet); by default the generator's",
    )


def _texture(generator: SceneGenerator, options: argparse.Namespace) -> int:
    """The texture's size; 0 if no format has a texture, or if scenes have no colors and the option is not set."""
    size = options.texture
    if not any(f".{kind}" in TEXTURED_SUFFIXES for kind in options.format):
        if size:
            raise UsageError("--texture: only glb and obj have a texture; ply has vertex colors")
        return 0
    if generator.latents is not None:
        if size:
            raise UsageError("--texture: the scenes are made of latents, which have no colors")
        return 0
    texture = TEXTURE if size is None else int(size)
    if texture and importlib.util.find_spec("xatlas") is None:
        raise UsageError("a texture needs xatlas: install scoredistill[mesh], or set --texture 0 for vertex colors")
    return texture


def _sound(mesh: Mesh, particle: int) -> Mesh:
    """The mesh, if it has a surface with an area."""
    if not bool(mesh.vertices.isfinite().all()):
        raise ValueError(f"particle {particle}: a vertex is not finite; training has diverged")
    if len(mesh.faces) == 0 or float(mesh.areas.sum()) == 0:
        what = "no faces" if len(mesh.faces) == 0 else f"{len(mesh.faces)} faces, all without area"
        raise NoSurfaceError(f"particle {particle} has no surface: {what}; try another --threshold or --resolution")
    return mesh
