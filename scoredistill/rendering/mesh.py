"""Triangle meshes: extraction from a volume, file formats, surface samples and the chamfer distance."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """A volume is entirely on one side of the level, so it has no surface."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world units with glTF's axes: y up, front +z.

    Args:
        vertices: (N, 3) floating point positions.
        faces: (F, 3) int64 indices of vertices, counter-clockwise seen from outside.
        colors: (N, 3) display colors in [0, 1], or None.

    Raises:
        ValueError: if the shapes do not match.
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
        """Whether the mesh is closed, edge-manifold and consistently wound: each edge occurs once in each direction."""
        if len(self.faces) == 0:
            return False
        start = self.faces.reshape(-1)
        end = self.faces.roll(-1, dims=1).reshape(-1)
        forward = (start * len(self.vertices) + end).sort().values
        backward = (end * len(self.vertices) + start).sort().values
        return bool((forward[1:] != forward[:-1]).all()) and torch.equal(forward, backward)

    @property
    def areas(self) -> Tensor:
        """(F,) areas of the faces in square world units."""
        return 0.5 * self._across.norm(dim=-1)

    @property
    def normals(self) -> Tensor:
        """(N, 3) smooth unit normals at the vertices: the mean of the adjacent faces' normals, weighted by area.

        The normal of a vertex without faces, or with degenerate faces only, is +z.
        """
        across = self._across.repeat_interleave(3, 0)
        total = torch.zeros_like(self.vertices).index_add(0, self.faces.reshape(-1), across)
        length = total.norm(dim=-1, keepdim=True)
        return torch.where(length > 0, total / length, total.new_tensor([0.0, 0.0, 1.0]))

    def save(self, path: str | Path) -> None:
        """Write the mesh atomically, in the format of the suffix. GLB, OBJ and PLY store vertex colors, STL does not.

        All formats have the world's axes, y up and front +z. GLB's unit is the meter; the others have no unit.

        Args:
            path: file name that ends in .glb, .obj, .ply or .stl.

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
        """Read a .glb, .obj, .ply or .stl file. Coincident vertices are merged, because STL repeats them per face.

        Textures are not read.

        Args:
            path: the file.

        Raises:
            ValueError: for another suffix, or a file without triangles.
        """
        return cls(*read_triangles(Path(path), _file_type(Path(path))))

    def sample_points(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """Draw n points uniformly over the surface's area.

        Args:
            n: number of points.
            rng: CPU generator; None: torch's global one.

        Returns:
            (n, 3), with the vertices' dtype and device.
        """
        corners = self.vertices.cpu().double()[self.faces.cpu()]  # (F, 3, 3)
        edges = corners[:, 1:] - corners[:, :1]
        area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=-1)
        # Inverse transform sampling, because torch.multinomial accepts at most 2^24 faces.
        total = area.cumsum(0)
        draw = torch.rand(n, 3, dtype=torch.float64, generator=rng)
        face = torch.searchsorted(total, draw[:, 0] * total[-1], right=True).clamp(max=len(area) - 1)
        # sqrt makes the barycentric coordinates uniform over the triangle.
        root = draw[:, 1:2].sqrt()
        points = corners[face, 0] + root * (1 - draw[:, 2:]) * edges[face, 0] + root * draw[:, 2:] * edges[face, 1]
        return points.to(self.vertices)

    @property
    def _across(self) -> Tensor:
        """(F, 3) outward normals of the faces, with twice the area as their length."""
        a, b, c = self.vertices[self.faces].unbind(1)
        return torch.linalg.cross(b - a, c - a)

    def _glb(self) -> bytes:
        return to_glb(self.vertices, self.faces, self.normals, self.colors, double_sided=not self.watertight)

    def _trimesh(self) -> trimesh.Trimesh:
        import trimesh

        colors = None if self.colors is None else (self.colors.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        vertices = self.vertices.detach().cpu().double().numpy()
        faces = self.faces.cpu().numpy()
        return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def _file_type(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the name of a mesh file must end in {', '.join(SUFFIXES)}; got {path.name!r}")
    return path.suffix.lower()[1:]


def marching_cubes(
    values: Tensor, level: float, bound: float = 1.0, inside: Literal["above", "below"] = "above"
) -> Mesh:
    """Extract the surface values = level of a volume, closed at the faces of the box.

    The volume is padded by one layer of outside values, so the mesh is watertight and may extend up to one grid
    spacing beyond the box.

    "Marching Cubes: A High Resolution 3D Surface Construction Algorithm" (1987); the topologically correct variant of
    "Efficient Implementation of Marching Cubes' Cases with Topological Guarantees" (2003).

    Args:
        values: (X, Y, Z) samples at `linspace(-bound, bound)` along each axis, indexed [x, y, z].
        level: value at the surface.
        bound: half the side of the box in world units.
        inside: "above" if values inside are above the level (densities), "below" if they are below it (distances).

    Returns:
        A mesh without colors, with float32 vertices.

    Raises:
        NoSurfaceError: if the volume is entirely on one side of the level.
        ValueError: if the volume is too small or not finite.
    """
    from skimage import measure

    volume = values.detach().cpu().float()
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise ValueError(f"values must be (X, Y, Z) with at least two samples per axis, got {tuple(values.shape)}")
    low, high = volume.min().item(), volume.max().item()
    level = surface_level(low, high, level, lambda: (low + high) / 2)
    if inside == "below":
        volume, level = -volume, -level
    # A sample exactly at the level would give several vertices at one point, and degenerate faces between them.
    nudge = 1e-5 * (high - low)
    volume = torch.where((volume - level).abs() < nudge, level + nudge, volume)
    # The padding is as far from the level as the deepest inside value, so that the closing vertices are between border
    # and padding.
    padding = level - (volume.max().item() - level)
    padded = torch.nn.functional.pad(volume, (1,) * 6, value=padding).numpy()
    vertices, faces, _, _ = measure.marching_cubes(padded, level, gradient_direction="ascent")
    spacing = 2 * bound / (torch.tensor(volume.shape, dtype=torch.float32) - 1)
    placed = (torch.tensor(vertices.copy()) - 1) * spacing - bound
    return Mesh(placed, torch.tensor(faces.astype("int64")))


def surface_level(
    low: float,
    high: float,
    level: float | None,
    default: Callable[[], float],
    subject: str = "the volume",
    quantity: str = "value",
    faintest: float = -math.inf,
    contrast: float = 0.0,
) -> float:
    """The value at the surface of a volume, which must be between the volume's extreme values.

    Args:
        low, high: extreme values of the volume.
        level: the requested value; None: the default.
        default: computes the level to use or to suggest; called only if there is a surface at some level.
        subject: name of the volume, for messages.
        quantity: name of the values, for messages.
        faintest: highest value below which the volume counts as empty.
        contrast: relative difference between the extreme values up to which the volume counts as constant.

    Raises:
        NoSurfaceError: if there is no surface at the level. The message suggests one if possible.
        ValueError: if a value is not finite.
    """
    if not math.isfinite(high - low):
        raise ValueError(f"{subject}: a {quantity} is not finite; training may have diverged")
    if high < faintest:
        raise NoSurfaceError(
            f"{subject} is empty everywhere: its {quantity} is at most {high:.3g}, too little to be visible; "
            "no threshold gives a useful surface"
        )
    if high <= (1 + contrast) * low:
        raise NoSurfaceError(f"{subject} has no surface: its {quantity} is {high:.3g} everywhere")
    if level is None:
        return default()
    if not low < level < high:
        raise no_surface_at(level, low, high, default(), subject, quantity)
    return level


def no_surface_at(
    level: float, low: float, high: float, suggested: float, subject: str, quantity: str
) -> NoSurfaceError:
    """The error for a level without a surface.

    Args:
        level: the requested value.
        low, high: extreme values of the volume.
        suggested: a level with a surface.
        subject, quantity: names of the volume and of its values.
    """
    return NoSurfaceError(
        f"{subject} has no surface at {quantity} {level:g}: values range from {low:.3g} to {high:.5g}; "
        f"try a threshold of {suggested:.5g}"
    )


def chamfer(a: Mesh, b: Mesh, points: int = 10_000, seed: int = 0) -> float:
    """Chamfer distance of two surfaces: the mean of the two directed mean distances to the nearest point.

        (mean_p min_q |p - q| + mean_q min_p |p - q|) / 2,    p on a, q on b, uniform over the area

    Distances are not squared. Both surfaces are sampled with the same seed, so the distance is symmetric and the
    distance of a mesh from itself is 0. Between different samples of the same surface it is about half the samples'
    spacing.

    Args:
        a, b: meshes in world units.
        points: number of samples on each surface.
        seed: random seed of the samples.

    Returns:
        The distance in world units.
    """
    from scipy.spatial import cKDTree

    p, q = (mesh.sample_points(points, torch.Generator().manual_seed(seed)).double().cpu().numpy() for mesh in (a, b))
    return 0.5 * float(cKDTree(q).query(p)[0].mean() + cKDTree(p).query(q)[0].mean())
