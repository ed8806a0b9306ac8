"""Regularizers of meshes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scoredistill.annealing import Annealed, at_progress
from scoredistill.generators.dmtet.surface import Surface, face_vectors, unit
from scoredistill.ranges import require


class SurfaceRegularizer(ABC):
    """A scalar penalty, averaged over a particle's surface and then over particles. A subclass implements `__call__`.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __init__(self, weight: Annealed = 1.0) -> None:
        require(">= 0", weight=weight)
        self.weight = weight

    @abstractmethod
    def __call__(self, surface: Surface) -> Tensor:
        """The penalty, without its weight.

        Args:
            surface: surfaces of all particles at this step.
        """


class SignChange(SurfaceRegularizer):
    """Penalizes sign changes: the mean, over edges that cross the surface, of

        H(sigmoid(a), [b > 0]) + H(sigmoid(b), [a > 0])

    with the signed distances a and b of the edge's ends in cells, and H the binary cross entropy in nats. It pulls both
    ends to the same side, and removes surfaces that no picture supports, for example inner ones.
    "Extracting Triangular 3D Models, Materials, and Lighting From Images" (2021), arXiv:2111.12503, equation 2.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, surface: Surface) -> Tensor:
        ends = surface.ends
        target = (ends.flip(1) > 0).to(ends)
        entropy = binary_cross_entropy_with_logits(ends, target, reduction="none").sum(1)
        return surface.mean(entropy, surface.particle)


class Laplacian(SurfaceRegularizer):
    """Penalizes the distance of vertices from the mean of their neighbors: the mean over vertices of

        |mean_j v_j - v|^2

    in cells, where v_j are the vertices that share an edge with v. This is the uniform Laplacian, as in
    arXiv:2111.12503; "Laplacian Surface Editing" (2004).

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, surface: Surface) -> Tensor:
        # In a closed surface each edge occurs once in each direction, so each neighbor counts once.
        start = surface.faces.flatten()
        end = surface.faces.roll(-1, dims=1).flatten()
        vertices = surface.vertices / surface.cell
        neighbors = torch.bincount(start, minlength=len(vertices)).to(vertices)
        total = torch.zeros_like(vertices).index_add(0, start, vertices.index_select(0, end))
        offset = total / neighbors[:, None] - vertices
        return surface.mean(offset.square().sum(1), surface.particle)


class NormalConsistency(SurfaceRegularizer):
    """Penalizes angles between neighboring faces: the mean over edges of 1 - n · m, where n and m are the unit normals
    of an edge's two faces.

    Args:
        weight: factor of the penalty, constant or annealed, >= 0.
    """

    def __call__(self, surface: Surface) -> Tensor:
        start = surface.faces.flatten()
        end = surface.faces.roll(-1, dims=1).flatten()
        # Sorted by edge, the two directions of each edge are aligned.
        m = len(surface.vertices)
        there, back = (start * m + end).argsort(), (end * m + start).argsort()
        once = start[there] < end[there]
        one, other = there[once] // 3, back[once] // 3
        # A face about a thousandth of a cell wide has no reliable normal, and its gradient would be huge.
        normals = unit(face_vectors(surface.vertices, surface.faces) / surface.cell**2, 1e-6)
        cosine = (normals.index_select(0, one) * normals.index_select(0, other)).sum(1)
        return surface.mean(1 - cosine, surface.face_particle[one])


def total(regularizers: Sequence[SurfaceRegularizer], surface: Surface, progress: float) -> Tensor | None:
    """The weighted sum of penalties on a surface; None if all weights are 0.

    Args:
        regularizers: any number of penalties.
        surface: surfaces of all particles.
        progress: fraction of training done, at which the weights are evaluated.
    """
    weights = [(at_progress(regularizer.weight, progress), regularizer) for regularizer in regularizers]
    penalties = [weight * regularizer(surface) for weight, regularizer in weights if weight != 0]
    return torch.stack(penalties).sum() if penalties else None
