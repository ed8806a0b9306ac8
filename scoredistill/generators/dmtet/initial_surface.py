"""Initial surfaces of meshes: signed distances by position and particle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import pi
from pathlib import Path

import torch
from torch import Tensor

from scoredistill.generators.dmtet.distance import signed_distance
from scoredistill.ranges import require
from scoredistill.rendering.mesh import Mesh


class InitialShape(ABC):
    """Initial signed distances. A subclass implements `__call__`."""

    @property
    def solid_radius(self) -> float:
        """Radius of the ball around the origin that is solid at first, where no camera may be; 0: none."""
        return 0.0

    @abstractmethod
    def __call__(self, axis: Tensor, particles: int, rng: torch.Generator) -> Tensor:
        """Signed distances of every particle's surface at the points of a lattice.

        Args:
            axis: (A,) coordinates of the lattice along each axis, from -1 to 1.
            particles: n >= 1.
            rng: CPU generator for the differences between particles.

        Returns:
            (n, A, A, A), negative inside.
        """


def wave(axis: Tensor, particles: int, size: float, rng: torch.Generator) -> Tensor:
    """A low-frequency wave per particle, (n, A, A, A), with standard deviation `size`."""
    waves = 4
    number = pi * torch.randn(waves, particles, 3, generator=rng).to(axis)
    phase = 2 * pi * torch.rand(waves, particles, 1, generator=rng).to(axis)
    total = axis.new_zeros(particles, *(len(axis),) * 3)
    if size:
        for k, b in zip(number, phase, strict=True):
            x, y, z = (k[:, i, None] * axis for i in range(3))
            total += ((x + b)[:, :, None, None] + y[:, None, :, None] + z[:, None, None]).cos_()
    return total.mul_(size * (2 / waves) ** 0.5)


class Ellipsoid(InitialShape):
    """An ellipsoid or a sphere with the signed distance

        s(p) = k (k - 1) / |p / r^2|,   k = |p / r|

    which is exact for a sphere, and for an ellipsoid to first order at the surface. Particles differ a little, because
    particles that start equal stay equal.

    Args:
        radii: radii along x, y and z in world units, > 0.
        size_variation: standard deviation of the logarithm of a particle's size, >= 0.
        shape_variation: standard deviation of a low-frequency wave that is added to the distance, >= 0.

    Raises:
        ValueError: if there are not three positive radii.
    """

    def __init__(
        self,
        radii: Sequence[float] = (0.5, 0.5, 0.5),
        size_variation: float = 0.1,
        shape_variation: float = 0.03,
    ) -> None:
        require("> 0", radii=radii)
        require(">= 0", size_variation=size_variation, shape_variation=shape_variation)
        if len(radii) != 3:
            raise ValueError(f"radii must be three numbers, along x, y and z; got {tuple(radii)}")
        self.radii = tuple(radii)
        self.size_variation = size_variation
        self.shape_variation = shape_variation

    @property
    def solid_radius(self) -> float:
        return min(self.radii)

    def __call__(self, axis: Tensor, particles: int, rng: torch.Generator) -> Tensor:
        size = torch.exp(self.size_variation * torch.randn(particles, 1, generator=rng)).to(axis)
        radii = size * axis.new_tensor(self.radii)
        k, steepness = (_length(axis[:, None] / radii[:, None] ** power) for power in (1, 2))
        # The center would be 0 / 0; its distance is the shortest radius.
        steepness.clamp_(min=1e-12)
        distance = torch.where(k > 1e-9, k * (k - 1) / steepness, -radii.amin(1)[:, None, None, None])
        return distance.add_(wave(axis, particles, self.shape_variation, rng))


def _length(coordinates: Tensor) -> Tensor:
    """(n, A, A, A) norms of a lattice's points, from their coordinates along each axis, (n, A, 3)."""
    x, y, z = coordinates.square().unbind(-1)
    return (x[:, :, None, None] + y[:, None, :, None] + z[:, None, None]).sqrt_()


class MeshShape(InitialShape):
    """The surface of a mesh file.

    Args:
        path: file name that ends in .glb, .obj, .ply or .stl; y up, front +z.
        size: longest side of the mesh's bounding box after scaling, in world units, in (0, 2]; the box is centered at
            the origin. None: the mesh is neither scaled nor moved, and is cut off at the faces of [-1, 1]^3.
        shape_variation: standard deviation of a low-frequency wave that is added to the distance, >= 0.

    Raises:
        ValueError: if the size is outside that range.
    """

    def __init__(self, path: str | Path, size: float | None = 1.2, shape_variation: float = 0.0) -> None:
        require("(0, 2]", size=size)
        require(">= 0", shape_variation=shape_variation)
        self.path = Path(path)
        self.size = size
        self.shape_variation = shape_variation

    def __call__(self, axis: Tensor, particles: int, rng: torch.Generator) -> Tensor:
        mesh = Mesh.load(self.path)
        vertices = mesh.vertices.double()
        if self.size is not None:
            low, high = vertices.amin(0), vertices.amax(0)
            vertices = (vertices - (low + high) / 2) * (self.size / (high - low).max())
        distance = signed_distance(Mesh(vertices, mesh.faces), len(axis)).to(axis)
        return wave(axis, particles, self.shape_variation, rng).add_(distance)
