"""Triangle meshes: extraction from a volume, files, surface samples and the chamfer distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from scoredistill.files import write_atomically
from scoredistill.rendering.gltf import to_glb
from scoredistill.rendering.reading import read_triangles

if TYPE_CHECKING:
    import trimesh

SUFFIXES = (".glb", ".obj", ".ply", ".stl")


class NoSurfaceError(ValueError):
    """A volume that lies wholly on one side of the level: there is nothing to make a mesh of."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world units, y up and front +z, which are glTF's axes.

    Args:
        vertices: (N, 3) floating point positions.
        faces: (F, 3) int64 indices of vertices, counter-clockwise seen from outside.
        colors: (N, 3) display colors in [0, 1], or None.

    Raises:
        ValueError: if the shapes do not fit one another.
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None

    def __post_init__(self) -> None:
        if self.vertices.shape[1:] != (3,) or self.faces.shape[1:] != (3,):
            shapes = f"{tuple(self.vertices.shape)} and {tuple(self.faces.shape)}"
            raise ValueError(f"need vertices (N, 3) and faces (F, 3), got {shapes}")
        if self.colors is not None and self.colors.shape != self.vertices.shape:
            raise ValueError(f"{len(self.vertices)} vertices but colors of shape {tuple(self.colors.shape)}")

    @property
    def watertight(self) -> bool:
        """Whether every edge is walked once in each direction: closed, manifold at its edges, consistently wound."""
        if len(self.faces) == 0:
            return False
        start, end = self.faces.reshape(-1), self.faces.roll(-1, dims=1).reshape(-1)
        forward = (start * len(self.vertices) + end).sort().values
        backward = (end * len(self.vertices) + start).sort().values
        return bool((forward[1:] != forward[:-1]).all()) and torch.equal(forward, backward)

    @property
    def areas(self) -> Tensor:
        """(F,) of the faces, square world units."""
        return 0.5 * self._across.norm(dim=-1)

    @property
    def normals(self) -> Tensor:
        """(N, 3) unit normals at the vertices: the mean of the faces' around each, weighted by area.

        They make curved surfaces look smooth; a vertex of no face, or of collapsed ones alone, has +z.
        """
        across = self._across.repeat_interleave(3, 0)
        total = torch.zeros_like(self.vertices).index_add(0, self.faces.reshape(-1), across)
        length = total.norm(dim=-1, keepdim=True)
        return torch.where(length > 0, total / length, total.new_tensor([0.0, 0.0, 1.0]))

    def save(self, path: str | Path) -> None:
        """Write the mesh; the suffix names the format. GLB, OBJ and PLY keep vertex colors, STL cannot.

        A reader never sees half a file: it is written beside its destination and then renamed. All four have the
        world's axes, y up and front +z; GLB's unit is the meter, the others have none.

        Args:
            path: ends in .glb, .obj, .ply or .stl.

        Raises:
            ValueError: for another suffix.
        """
        path = Path(path)
        kind = _file_type(path)
        content: Any = self._glb() if kind == "glb" else self._trimesh().export(file_type=kind)
        content = content.encode() if isinstance(content, str) else content
        write_atomically(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | Path) -> Mesh:
        """Read a .glb, .obj, .ply or .stl file. Coincident vertices are merged, as STL stores each corner apart.

        Of a textured file only the geometry is read.

        Raises:
            ValueError: for another suffix, or a file without triangles.
        """
        return cls(*read_triangles(Path(path), _file_type(Path(path))))

    def sample_points(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """n points uniform over the surface's area.

        Args:
            n: number of points.
            rng: CPU generator; None: torch's global one.

        Returns:
            (n, 3), with the vertices' dtype and device.
        """
        corners = self.vertices.cpu().double()[self.faces.cpu()]  # (F, 3, 3)
        edges = corners[:, 1:] - corners[:, :1]
        area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=-1)
        # By inverse transform rather than torch.multinomial, which takes at most 2^24 faces.
        total = area.cumsum(0)
        draw = torch.rand(n, 3, dtype=torch.float64, generator=rng)
        face = torch.searchsorted(total, draw[:, 0] * total[-1], right=True).clamp(max=len(area) - 1)
        # sqrt makes the barycentric coordinates uniform over the triangle.
        root = draw[:, 1:2].sqrt()
        points = corners[face, 0] + root * (1 - draw[:, 2:]) * edges[face, 0] + root * draw[:, 2:] * edges[face, 1]
        return points.to(self.vertices)

    @property
    def _across(self) -> Tensor:
        """(F, 3) outward normals of the faces, twice as long as their areas."""
        a, b, c = self.vertices[self.faces].unbind(1)
        return torch.linalg.cross(b - a, c - a)

    def _glb(self) -> bytes:
        return to_glb(self.vertices, self.faces, self.normals, self.colors, double_sided=not self.watertight)

    def _trimesh(self) -> trimesh.Trimesh:
        import trimesh

        colors = None if self.colors is None else (self.colors.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        vertices, faces = self.vertices.detach().cpu().double().numpy(), self.faces.cpu().numpy()
        return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def _file_type(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a mesh file ends in {', '.join(SUFFIXES)}; got {path.name!r}")
    return path.suffix.lower()[1:]


def marching_cubes(
    values: Tensor, level: float, bound: float = 1.0, inside: Literal["above", "below"] = "above"
) -> Mesh:
    """The surface values = level of a volume, closed where it leaves the box.

    The volume is padded by one layer of outside, so the mesh is watertight and may reach up to one grid spacing
    beyond the box.

    Marching Cubes: A High Resolution 3D Surface Construction Algorithm, 1987; the topologically correct variant of
    Efficient Implementation of Marching Cubes' Cases with Topological Guarantees, 2003.

    Args:
        values: (X, Y, Z) samples at `linspace(-bound, bound)` along each axis, indexed [x, y, z].
        level: of the surface.
        bound: half the side of the box, world units.
        inside: "above" where the inside is larger than the level (densities), "below" where it is smaller (distances).

    Returns:
        A mesh without colors, vertices float32.

    Raises:
        NoSurfaceError: if the volume lies wholly on one side of the level.
        ValueError: if the volume is too small or not finite.
    """
    from skimage import measure

    volume = values.detach().cpu().float()
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise ValueError(f"need values (X, Y, Z) of at least two samples an axis, got {tuple(values.shape)}")
    low, high = _range_around(volume, level)
    if inside == "below":
        volume, level = -volume, -level
    # A sample exactly at the level would give several vertices at one point, and collapsed faces between them.
    nudge = 1e-5 * (high - low)
    volume = torch.where((volume - level).abs() < nudge, level + nudge, volume)
    # The same distance from the level as the deepest inside puts the closing vertices between border and padding.
    padding = level - (volume.max().item() - level)
    padded = torch.nn.functional.pad(volume, (1,) * 6, value=padding).numpy()
    vertices, faces, _, _ = measure.marching_cubes(padded, level, gradient_direction="ascent")
    spacing = 2 * bound / (torch.tensor(volume.shape, dtype=torch.float32) - 1)
    placed = (torch.tensor(vertices.copy()) - 1) * spacing - bound
    return Mesh(placed, torch.tensor(faces.astype("int64")))


def _range_around(volume: Tensor, level: float) -> tuple[float, float]:
    """The volume's extreme values, which must lie on both sides of the level."""
    low, high = volume.min().item(), volume.max().item()
    if not math.isfinite(high - low):
        raise ValueError(f"a volume must be finite; values range from {low:g} to {high:g}")
    if not low < high:
        raise NoSurfaceError(f"no surface at level {level:g} nor at any other: all values are {low:g}")
    if not low < level < high:
        raise NoSurfaceError(
            f"no surface at level {level:g}: values range from {low:g} to {high:g}; try {(low + high) / 2:g}"
        )
    return low, high


def chamfer(a: Mesh, b: Mesh, points: int = 10_000, seed: int = 0) -> float:
    """Chamfer distance of two surfaces: the mean of the two directed mean distances to the nearest point.

        (mean_p min_q |p - q| + mean_q min_p |p - q|) / 2,    p on a, q on b, uniform over the area

    Distances are not squared. Both surfaces are sampled with the same seed, so that the distance is symmetric and a
    mesh is at distance 0 from itself; different surfaces keep a floor of about half the samples' spacing.

    Args:
        a, b: meshes, world units.
        points: samples on each surface.
        seed: of the samples.

    Returns:
        World units.
    """
    from scipy.spatial import cKDTree

    p, q = (mesh.sample_points(points, torch.Generator().manual_seed(seed)).double().cpu().numpy() for mesh in (a, b))
    return 0.5 * float(cKDTree(q).query(p)[0].mean() + cKDTree(p).query(q)[0].mean())
