"""The colour of any point of a surface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scoredistill.rendering.mesh import Mesh

Colours = Callable[[Tensor], Tensor]
"""From points (P, 3) on a surface, world units, to colours (P, 3) in [-1, 1]."""

_NEIGHBOURS = 12
"""Faces, the nearest by their centres, among which the one that a point lies on is looked for."""


class VertexColours:
    """Colours between a mesh's vertices: interpolated linearly over the face that is nearest to a point.

    Args:
        mesh: with colours at its vertices, and faces of about equal size.

    Raises:
        ValueError: if it has no colours.
    """

    def __init__(self, mesh: Mesh) -> None:
        from scipy.spatial import cKDTree

        if mesh.colors is None:
            raise ValueError("a mesh without vertex colours gives no texture")
        self._corners = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()]
        self._colours = mesh.colors.detach().cpu().double()[mesh.faces.cpu()]
        self._tree = cKDTree(self._corners.mean(1).numpy())

    def __call__(self, points: Tensor) -> Tensor:
        """(P, 3) points, near the surface, to colours (P, 3) in [-1, 1]."""
        place = points.detach().cpu().double()
        near = torch.from_numpy(self._tree.query(place.numpy(), k=min(_NEIGHBOURS, len(self._corners)))[1])
        near = near.reshape(len(place), -1)
        weight = _nearest(place[:, None].expand(*near.shape, 3), self._corners[near])
        distance = (torch.einsum("pkc,pkcd->pkd", weight, self._corners[near]) - place[:, None]).norm(dim=-1)
        best = distance.argmin(1, keepdim=True)
        face = near.gather(1, best)[:, 0]
        share = weight.gather(1, best[..., None].expand(-1, -1, 3))[:, 0]
        return (2 * torch.einsum("pc,pcd->pd", share, self._colours[face]) - 1).to(points)


def _nearest(points: Tensor, corners: Tensor) -> Tensor:
    """(..., 3) barycentric coordinates of the foot of the perpendicular onto a triangle, moved into it if outside."""
    origin = corners[..., 0, :]
    edges = corners[..., 1:, :] - origin[..., None, :]
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])
    area = normal.square().sum(-1).clamp(min=1e-30)
    away = points - origin
    second = (torch.linalg.cross(away, edges[..., 1, :]) * normal).sum(-1) / area
    third = (torch.linalg.cross(edges[..., 0, :], away) * normal).sum(-1) / area
    weight = torch.stack([1 - second - third, second, third], dim=-1).clamp(min=0)
    return weight / weight.sum(-1, keepdim=True)
