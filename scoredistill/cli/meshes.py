"""Mesh files of particles: which are written, how the meshes are made ready for them, and the options for both."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.cli.parsers import finite, integer
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.assets import TexturedMesh, count_pieces, decimate, keep_largest
from scoredistill.rendering.assets.textured import TEXTURED_SUFFIXES, companions
from scoredistill.rendering.mesh import SUFFIXES, Mesh, NoSurfaceError

TEXTURE = 1024
"""Height and width of a texture where none is asked for."""
COARSEST = 8
"""Lattice points along an axis; an object lies between those of a coarser lattice, and seems not to be there."""


@dataclass(frozen=True)
class MeshFiles:
    """The mesh files of each particle.

    Args:
        kinds: formats: glb, obj, ply, stl.
        texture: height and width of the texture of those that have one, 0: colors at the vertices instead.
        faces: the most that a mesh may have; None: any number.
        largest: whether only the largest piece is kept.
        resolution: lattice points along each axis; None: the generator's own choice.
        threshold: value of its field at the surface; None: its own choice.
    """

    kinds: tuple[str, ...]
    texture: int
    faces: int | None
    largest: bool
    resolution: int | None
    threshold: float | None

    @classmethod
    def of(cls, generator: SceneGenerator, options: argparse.Namespace) -> MeshFiles:
        """What the options ask for.

        Raises:
            UsageError: if the scenes have no such thing, or a library is missing.
        """
        texture = _texture(generator, options)
        if options.faces is not None and importlib.util.find_spec("fast_simplification") is None:
            raise UsageError("--faces needs fast-simplification: install scoredistill[mesh]")
        kinds = tuple(dict.fromkeys(options.format))
        return cls(kinds, texture, options.faces, options.keep_largest, options.resolution, options.threshold)

    def names(self, particle: int) -> list[str]:
        """The files' names."""
        names = [f"particle_{particle}.{kind}" for kind in self.kinds]
        if self.texture and "obj" in self.kinds:
            names += [path.name for path in companions(Path(f"particle_{particle}.obj"))]
        return names

    def write(self, generator: SceneGenerator, particle: int, folder: Path) -> str:
        """Write them, and say what the mesh is like.

        Raises:
            NoSurfaceError: if there is none.
            ValueError: if a place is not finite.
        """
        mesh = _sound(generator.mesh(particle, self.resolution, self.threshold), particle)
        colors = None if generator.latents is not None else partial(generator.color, particle=particle)
        pieces, found = count_pieces(mesh), len(mesh.faces)
        mesh = keep_largest(mesh) if self.largest else mesh
        mesh = mesh if self.faces is None else decimate(mesh, self.faces)
        if colors is not None:
            mesh = replace(mesh, colors=((colors(mesh.vertices) + 1) / 2).clamp(0, 1))
        textured = TexturedMesh.bake(mesh, colors, self.texture) if self.texture and colors is not None else None
        for kind in self.kinds:
            written = mesh if textured is None or f".{kind}" not in TEXTURED_SUFFIXES else textured
            written.save(folder / f"particle_{particle}.{kind}")
        return self._description(mesh, found, pieces)

    def _description(self, mesh: Mesh, found: int, pieces: int) -> str:
        words = [f"{len(mesh.faces)} faces" + (f" of {found}" if len(mesh.faces) < found else "")]
        words.append("watertight" if mesh.watertight else "not watertight")
        if pieces > 1:
            kept = "of which the largest" if self.largest else "of which --keep-largest would keep one"
            words.append(f"{pieces} pieces, {kept}")
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
        help="of the meshes: glb (default), obj, ply, stl; none: no meshes. A glb holds its texture, an obj has it in "
        "a .mtl and a .png beside it; ply has colors at its vertices, stl none",
    )
    add(
        "--texture",
        type=integer(0, 16384),
        help=f"height and width of the texture of glb and obj in texels, {TEXTURE}; 0: colors at the vertices. Takes "
        "seconds for 20,000 faces and half a minute for 75,000: see --faces. Needs scoredistill[mesh]",
    )
    add(
        "--faces",
        type=integer(4, 2**31 - 1),
        help="most faces of a mesh; all that the resolution gives by default. Needs scoredistill[mesh]",
    )
    add(
        "--keep-largest",
        action="store_true",
        help="leave out all but the mesh's largest connected piece: what floats around the object, what is inside it",
    )
    add(
        "--resolution",
        type=integer(COARSEST, 2048),
        help=f"lattice points along each axis of the mesh, {COARSEST} or more; the generator's own by default",
    )
    add(
        "--threshold",
        type=finite,
        help="density at the surface, of a DMTet signed distance; the generator's own by default",
    )


def _texture(generator: SceneGenerator, options: argparse.Namespace) -> int:
    """The texture's size; 0 where no format has one, and where scenes without colors were not asked for it."""
    wanted = options.texture
    if not any(f".{kind}" in TEXTURED_SUFFIXES for kind in options.format):
        if wanted:
            raise UsageError("--texture: only glb and obj have one; ply has colors at its vertices")
        return 0
    if generator.latents is not None:
        if wanted:
            raise UsageError("--texture: the scenes are made of latents, which have no colors")
        return 0
    texture = TEXTURE if wanted is None else int(wanted)
    if texture and importlib.util.find_spec("xatlas") is None:
        raise UsageError("a texture needs xatlas: install scoredistill[mesh], or give --texture 0 for vertex colors")
    return texture


def _sound(mesh: Mesh, particle: int) -> Mesh:
    """The mesh, which has a surface with an area."""
    if not bool(mesh.vertices.isfinite().all()):
        raise ValueError(f"particle {particle}: a vertex is not finite; training has diverged")
    if len(mesh.faces) == 0 or float(mesh.areas.sum()) == 0:
        what = "no faces" if len(mesh.faces) == 0 else f"{len(mesh.faces)} faces, all of no area"
        raise NoSurfaceError(f"particle {particle} has no surface: {what}; try another --threshold or --resolution")
    return mesh
