"""Connected pieces of a mesh, for removing floating parts."""

from __future__ import annotations

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
    start, end = faces.reshape(-1).numpy(), faces.roll(-1, dims=1).reshape(-1).numpy()
    graph = coo_array((torch.ones(len(start)).numpy(), (start, end)), shape=(len(mesh.vertices),) * 2)
    piece = torch.from_numpy(connected_components(graph, directed=False)[1]).long()[faces[:, 0]]
    return piece.unique(return_inverse=True)[1]  # vertices without faces do not count as pieces
