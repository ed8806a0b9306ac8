"""Decimation: the same shape of fewer faces."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scoredistill.rendering.assets.pieces import compact
from scoredistill.rendering.mesh import Mesh

_EAGERNESS = (7.0, 6.0, 5.0, 4.0, 3.0, 2.0)
"""How fast the library's tolerance grows, from its own default on: each takes other edges."""


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """Collapse the edges whose loss changes the surface least, until few enough faces are left.

    Surface Simplification Using Quadric Error Metrics, 1997.

    Args:
        mesh: any; its colors are lost, for its vertices are.
        faces: the most that may be left, >= 4. A mesh that has no more is returned as it is, colors included.

    Returns:
        A mesh with vertices of the same dtype and device. Of a watertight mesh it is watertight too, unless several
        attempts have all pinched it at an edge: then it has no hole, but edges in which four faces meet.

    Raises:
        ImportError: if fast-simplification is not installed.
        ValueError: if so few faces are out of reach.
    """
    if len(mesh.faces) <= faces:
        return mesh
    attempts = _attempts(mesh, faces)
    less = next(attempts)
    if mesh.watertight and not less.watertight:
        less = next((other for other in attempts if other.watertight and 4 <= len(other.faces) <= faces), less)
    if not 4 <= len(less.faces) <= faces:
        raise ValueError(f"{len(mesh.faces)} faces cannot become {faces}, only {len(less.faces)}: allow more")
    return less


def _attempts(mesh: Mesh, faces: int) -> Iterator[Mesh]:
    try:
        import fast_simplification
    except ImportError as error:
        raise ImportError("fewer faces need fast-simplification: install scoredistill[mesh]") from error
    points, corners = mesh.vertices.detach().cpu().double().numpy(), mesh.faces.cpu().int().numpy()
    for eagerness in _EAGERNESS:
        vertices, left = fast_simplification.simplify(points, corners, target_count=faces, agg=eagerness)
        less = Mesh(torch.from_numpy(vertices).to(mesh.vertices), torch.from_numpy(left).to(mesh.faces))
        yield compact(less, ~_folded(less.faces))


def _folded(faces: Tensor) -> Tensor:
    """(F,) whether a face lies back to back with another one, so that the two enclose nothing."""
    _, same, count = faces.sort(dim=1).values.unique(dim=0, return_inverse=True, return_counts=True)
    return count[same] == 2
