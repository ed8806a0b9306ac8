"""Surfaces of n particles as one packed triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
