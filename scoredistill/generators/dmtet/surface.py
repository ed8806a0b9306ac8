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
        ends: (M, 2) signed distances at the two ends of the edge that a vertex lies on, one negative and one positive,
            in units of a cell; differentiable.
        cell: side of a cell, in the units of `vertices`.
        vertex_counts, face_counts: of each particle, n each.
    """

    vertices: Tensor
    faces: Tensor
    ends: Tensor
    cell: float
    vertex_counts: tuple[int, ...]
    face_counts: tuple[int, ...]

    @property
    def particle(self) -> Tensor:
        """(M,) the particle that each vertex belongs to."""
        return _owners(self.vertex_counts, self.faces)

    @property
    def face_particle(self) -> Tensor:
        """(F,) the particle that each face belongs to."""
        return _owners(self.face_counts, self.faces)

    @property
    def normals(self) -> Tensor:
        """(M, 3) smooth unit normals: the faces' around each vertex, weighted by area."""
        around = torch.zeros_like(self.vertices)
        across = face_vectors(self.vertices, self.faces)
        for corner in self.faces.unbind(1):
            around = around.index_add(0, corner, across)
        return unit(around, 1e-6 * self.cell**2)

    def faces_of(self) -> list[Tensor]:
        """Each particle's faces as rows of its own vertices."""
        starts = torch.tensor([0, *self.vertex_counts]).cumsum(0).tolist()
        return [faces - start for faces, start in zip(self.faces.split(self.face_counts), starts, strict=False)]

    def mean(self, values: Tensor, particle: Tensor) -> Tensor:
        """The mean over particles of each one's mean, so that a large particle does not outweigh a small one.

        Args:
            values: (K,).
            particle: (K,) that each value belongs to; a particle without any counts as 0.
        """
        n = len(self.vertex_counts)
        count = torch.bincount(particle, minlength=n).to(values)
        return (values / count.index_select(0, particle)).sum() / n


def _owners(counts: tuple[int, ...], like: Tensor) -> Tensor:
    number = torch.tensor(counts, device=like.device)
    return torch.arange(len(counts), device=like.device).repeat_interleave(number)


def face_vectors(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3) outward vectors across the faces, twice as long as their areas."""
    a, b, c = (vertices.index_select(0, corner) for corner in faces.unbind(1))
    return torch.linalg.cross(b - a, c - a)


def unit(vectors: Tensor, floor: float) -> Tensor:
    """Vectors (K, 3) of length 1; of ones much shorter than the floor, which have no direction, of length 0."""
    return vectors / (vectors.square().sum(1, keepdim=True) + floor**2).sqrt()
