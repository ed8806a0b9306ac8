"""Fewer faces, and only the largest connected piece."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh


def count_pieces(mesh: Mesh) -> int:
    """The number of pieces that share no vertex with each other."""
    return int(_piece_of_faces(mesh).max()) + 1 if len(mesh.faces) else 0


def keep_largest(mesh: Mesh) -> Mesh:
    """The piece with the largest surface area, without floating parts and inner surfaces.

    Args:
        mesh: a mesh with at least one face.
    """
    piece = _piece_of_faces(mesh)
    area = torch.zeros(int(piece.max()) + 1, dtype=mesh.areas.dtype).index_add(0, piece, mesh.areas.cpu())
    return compact(mesh, (piece == area.argmax()).to(mesh.faces.device))


def compact(mesh: Mesh, chosen: Tensor) -> Mesh:
    """Select faces, and remove the vertices that they do not use.

    Args:
        mesh: any mesh.
        chosen: (F,) bool.
    """
    used, faces = mesh.faces[chosen].unique(return_inverse=True)
    return Mesh(mesh.vertices[used], faces, None if mesh.colors is None else mesh.colors[used])


def _piece_of_faces(mesh: Mesh) -> Tensor:
    """(F,) int64 index of each face's piece, starting from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces = mesh.faces.cpu()
    start = faces.reshape(-1).numpy()
    end = faces.roll(-1, dims=1).reshape(-1).numpy()
    graph = coo_array((torch.ones(len(start)).numpy(), (start, end)), shape=(len(mesh.vertices),) * 2)
    piece = torch.from_numpy(connected_components(graph, directed=False)[1]).long()[faces[:, 0]]
    return piece.unique(return_inverse=True)[1]  # vertices without faces do not count as pieces


_EAGERNESS = (7.0, 6.0, 5.0, 4.0, 3.0, 2.0)
"""Values of the library's `agg`, the growth rate of its tolerance, starting with its default. Each collapses other
edges."""


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """Collapse the edges that change the surface least, until the mesh has few enough faces.

    "Surface Simplification Using Quadric Error Metrics" (1997).

    Args:
        mesh: any mesh. The result has new vertices, and so no colors.
        faces: maximum number of faces, >= 4. A mesh with at most this many is returned unchanged, with its colors.

    Returns:
        A mesh with vertices of the same dtype and device. The result for a watertight mesh is watertight, unless all
        attempts pinch it at an edge: then it has no holes, but edges with four faces.

    Raises:
        ImportError: if fast-simplification is not installed.
        ValueError: if the mesh cannot be reduced to that number of faces.
    """
    if len(mesh.faces) <= faces:
        return mesh
    attempts = _attempts(mesh, faces)
    reduced = next(attempts)
    if mesh.watertight and not reduced.watertight:
        reduced = next((other for other in attempts if other.watertight and 4 <= len(other.faces) <= faces), reduced)
    if not 4 <= len(reduced.faces) <= faces:
        raise ValueError(
            f"{len(mesh.faces)} faces cannot be reduced to {faces}, only to {len(reduced.faces)}: allow more faces"
        )
    return reduced


def _attempts(mesh: Mesh, faces: int) -> Iterator[Mesh]:
    try:
        import fast_simplification
    except ImportError as error:
        raise ImportError("fewer faces need fast-simplification: install scoredistill[mesh]") from error
    points = mesh.vertices.detach().cpu().double().numpy()
    corners = mesh.faces.cpu().int().numpy()
    for eagerness in _EAGERNESS:
        vertices, kept = fast_simplification.simplify(points, corners, target_count=faces, agg=eagerness)
        reduced = Mesh(torch.from_numpy(vertices).to(mesh.vertices), torch.from_numpy(kept).to(mesh.faces))
        yield compact(reduced, ~_folded(reduced.faces))


def _folded(faces: Tensor) -> Tensor:
    """(F,) whether a face coincides with another one, so that the two enclose no volume."""
    _, same, count = faces.sort(dim=1).values.unique(dim=0, return_inverse=True, return_counts=True)
    return count[same] == 2
