"""Marching tetrahedra: triangle meshes of n particles from signed distances on a grid.

If the ends a and b of an edge are on different sides, the surface passes through

    v = (p_a s_b - p_b s_a) / (s_b - s_a),

which is differentiable in the positions p and the signed distances s. A tetrahedron with one corner on one side gives a
triangle; one with two corners on each side gives a quadrilateral. "Deep Marching Tetrahedra: a Hybrid Representation
for High-Resolution 3D Shape Synthesis" (2021), arXiv:2111.04276; "An Efficient Method of Triangulating Equi-Valued
Surfaces by Using Tetrahedral Cells" (1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from scoredistill.generators.dmtet.grid import TETRAHEDRA, Grid, corner_steps


@dataclass(frozen=True)
class Surface:
    """n particles' meshes, one after another.

    Args:
        vertices: (M, 3), differentiable.
        faces: (F, 3) int64 rows of `vertices`, counter-clockwise seen from outside.
        ends: (M, 2) signed distances at the two ends of the edge that contains each vertex, one negative and one
            positive, in cells; differentiable.
        cell: side of a cell, in the units of `vertices`.
        vertex_counts, face_counts: number of vertices and of faces of each particle, n each.
    """

    vertices: Tensor
    faces: Tensor
    ends: Tensor
    cell: float
    vertex_counts: tuple[int, ...]
    face_counts: tuple[int, ...]

    @property
    def particle(self) -> Tensor:
        """(M,) particle of each vertex."""
        return _owners(self.vertex_counts, self.faces)

    @property
    def face_particle(self) -> Tensor:
        """(F,) particle of each face."""
        return _owners(self.face_counts, self.faces)

    @property
    def normals(self) -> Tensor:
        """(M, 3) smooth unit normals: the sum of the adjacent faces' normals, weighted by area."""
        total = torch.zeros_like(self.vertices)
        vectors = face_vectors(self.vertices, self.faces)
        for corner in self.faces.unbind(1):
            total = total.index_add(0, corner, vectors)
        return unit(total, 1e-6 * self.cell**2)

    def faces_of(self) -> list[Tensor]:
        """Each particle's faces, as rows of that particle's vertices."""
        starts = torch.tensor([0, *self.vertex_counts]).cumsum(0).tolist()
        return [faces - start for faces, start in zip(self.faces.split(self.face_counts), starts, strict=False)]

    def mean(self, values: Tensor, particle: Tensor) -> Tensor:
        """The mean over particles of each particle's mean, so that large particles do not outweigh small ones.

        Args:
            values: (K,).
            particle: (K,) particle of each value; the mean of a particle without values is 0.
        """
        n = len(self.vertex_counts)
        count = torch.bincount(particle, minlength=n).to(values)
        return (values / count.index_select(0, particle)).sum() / n


def _owners(counts: tuple[int, ...], like: Tensor) -> Tensor:
    number = torch.tensor(counts, device=like.device)
    return torch.arange(len(counts), device=like.device).repeat_interleave(number)


def face_vectors(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3) outward normals of the faces, with twice the area as their length."""
    a, b, c = (vertices.index_select(0, corner) for corner in faces.unbind(1))
    return torch.linalg.cross(b - a, c - a)


def unit(vectors: Tensor, floor: float) -> Tensor:
    """Vectors (K, 3) normalized to length 1. Vectors much shorter than the floor get length 0."""
    return vectors / (vectors.square().sum(1, keepdim=True) + floor**2).sqrt()


MAX_TRIANGLES = 12
"""Maximum number of triangles in a cell: two in each of six tetrahedra."""

NO_TRIANGLE = 255
"""Table entry for a missing triangle."""

EVEN = tuple(p for p in permutations(range(4)) if sum(p[i] > p[j] for i in range(4) for j in range(i + 1, 4)) % 2 == 0)
"""The even permutations of four corners."""


def _triangles(inside: tuple[bool, ...]) -> list[tuple[tuple[int, int], ...]]:
    """Triangles of a positively oriented tetrahedron as three edges each, counter-clockwise seen from outside."""
    # An even permutation keeps the orientation: take one that moves the inside corners to the front.
    i, j, k, m = next(p for p in EVEN if sorted(map(inside.__getitem__, p), reverse=True) == [inside[c] for c in p])
    match sum(inside):
        case 1:
            return [((i, j), (i, k), (i, m))]
        case 2:
            return [((i, k), (i, m), (j, m)), ((i, k), (j, m), (j, k))]
        case 3:
            return [((m, i), (m, j), (m, k))]
        case _:
            return []


def _edge(tetrahedron: tuple[int, ...], a: int, b: int) -> int:
    """An edge's number in its cell: 8 times its lower corner plus the direction to its upper corner."""
    return 8 * (tetrahedron[a] & tetrahedron[b]) + (tetrahedron[a] ^ tetrahedron[b])


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    """(256, 12, 3) uint8: for each set of inside corners, the edges that contain the triangles' vertices."""
    table = torch.full((256, MAX_TRIANGLES, 3), NO_TRIANGLE, dtype=torch.uint8)
    for code in range(256):
        triangles = [
            [_edge(tetrahedron, a, b) for a, b in triangle]
            for tetrahedron in TETRAHEDRA
            for triangle in _triangles(tuple(bool(code >> corner & 1) for corner in tetrahedron))
        ]
        if triangles:
            table[code, : len(triangles)] = torch.tensor(triangles, dtype=torch.uint8)
    return table.to(device)


def _corners_inside(inside: Tensor) -> Tensor:
    """(n, R, R, R) uint8: the inside corners of each cell, corner c as bit c."""
    last = inside.shape[1] - 1
    code = torch.zeros(inside.shape[0], last, last, last, dtype=torch.uint8, device=inside.device)
    for corner in range(8):
        x = corner >> 2
        y = corner >> 1 & 1
        z = corner & 1
        code |= inside[:, x : x + last, y : y + last, z : z + last].to(torch.uint8) << corner
    return code


def marching_tetrahedra(grid: Grid, level: float = 0.0) -> Surface:
    """The surfaces of all particles: closed, oriented outwards, with one vertex per crossed edge.

    Only cells that contain a piece of the surface are processed further, so the memory beside the lattice's is
    proportional to the surface.

    Args:
        grid: signed distances and positions of n particles.
        level: signed distance at the surface, in the box's units.

    Returns:
        The surfaces in the box's units. A particle without a surface has no face.
    """
    n = len(grid.distance)
    points = grid.points
    code = _corners_inside(grid.inside(level))
    particle, x, y, z = ((code > 0) & (code < 255)).nonzero(as_tuple=True)
    base = ((particle * points + x) * points + y) * points + z
    step = torch.tensor(corner_steps(points), device=base.device)
    triangles = _table(base.device)[code[particle, x, y, z].int()]
    cell, place = (triangles[:, :, 0] != NO_TRIANGLE).nonzero(as_tuple=True)
    edge = triangles[cell, place].long()
    number = 8 * (base[cell, None] + step[edge >> 3]) + (edge & 7)
    crossed, faces = number.unique(return_inverse=True)
    a = crossed >> 3
    b = a + step[crossed & 7]
    ends, places = grid.at(torch.cat([a, b]), level)
    (s_a, s_b), (p_a, p_b) = ends.view(2, -1), places.view(2, -1, 3)
    share = s_a / (s_a - s_b)
    return Surface(
        p_a + share[:, None] * (p_b - p_a),
        faces,
        torch.stack([s_a, s_b], dim=1) / grid.cell,
        grid.cell,
        tuple(torch.bincount(a // points**3, minlength=n).tolist()),
        tuple(torch.bincount(particle[cell], minlength=n).tolist()),
    )
