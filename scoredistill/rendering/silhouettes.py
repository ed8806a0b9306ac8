"""Silhouettes: the edges where a surface ends or turns away from the camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.rendering.scene import Scene


@dataclass(frozen=True)
class Silhouettes:
    """E edges with the surface on one side only, each from a vertex `edge[:, 0]` to `edge[:, 1]`.

    Args:
        edge: (E, 2) rows of the scene's vertices, both beyond the near plane.
        side: (E,) 1.0 if the surface is to the left of the direction from the first to the second vertex, in a picture
            whose y axis points up, and -1.0 if it is to the right.
        depth: (E, 2) smallest and largest depth w of the corners of the edge's faces.
        picture: (E,) the edge's picture.
    """

    edge: Tensor
    side: Tensor
    depth: Tensor
    picture: Tensor


def facing(corners: Tensor) -> Tensor:
    """Orientation of faces in the picture: 1 counter-clockwise, -1 clockwise, 0 edge-on or degenerate.

    Args:
        corners: (F, 3, 4) clip coordinates, on either side of the camera.
    """
    # The sign of six times the volume between the camera and the face. Near a silhouette this is a difference of almost
    # equal products, so it needs double precision.
    a, b, c = corners[..., [0, 1, 3]].double().unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1).sign()


@torch.no_grad()
def silhouettes(scene: Scene) -> Silhouettes:
    """Find the edges that have all their faces on one side in the picture.

    These are the borders of open surfaces, and the edges between a face seen from the front and a face seen from the
    back, whether they are visible or hidden. The orientation of faces does not matter. Edges with an end in front of
    the near plane are left out.
    """
    vertices = len(scene.clip)
    start = scene.faces.flatten()
    end = scene.faces.roll(-1, dims=1).flatten()
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    side = facing(scene.clip.index_select(0, scene.faces.flatten()).view(-1, 3, 4))
    side = side.repeat_interleave(3) * (end - start).sign()
    picture = scene.picture.repeat_interleave(3)
    key, order = ((picture * vertices + low) * vertices + high).sort()
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    first = new.nonzero()[:, 0]
    last = torch.cat([first[1:], first.new_full((len(first[:1]),), len(key))]) - 1
    ordered = side.index_select(0, order)
    group = new.cumsum(0) - 1
    total = ordered.new_zeros(len(first)).index_add(0, group, ordered)
    known = ordered.new_zeros(len(first)).index_add(0, group, ordered.abs())
    chosen = ((total.abs() == known) & (known > 0)).nonzero()[:, 0]
    one, other = order.index_select(0, first[chosen]), order.index_select(0, last[chosen])
    edge = torch.stack([low.index_select(0, one), high.index_select(0, one)], dim=1)
    corners = scene.clip[scene.faces[torch.stack([one, other], dim=1) // 3], 3].flatten(1)
    front = (scene.clip[edge][..., 2:].sum(dim=-1) > 0).all(dim=1)
    depth = torch.stack([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    return Silhouettes(edge[front], total[chosen].sign()[front], depth[front], picture[one][front])
