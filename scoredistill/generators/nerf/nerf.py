"""n neural radiance fields, rendered in one batched call."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.annealing import Piecewise, at_progress
from scoredistill.generators.base import Generator
from scoredistill.generators.nerf.background import Background, RandomBackground
from scoredistill.generators.nerf.encodings import DenseGrid, Encoding
from scoredistill.generators.nerf.field import Activation, Field
from scoredistill.generators.nerf.heads import DirectHead, Head, MLPHead
from scoredistill.generators.nerf.initial import DensityBlob, Initial
from scoredistill.generators.nerf.march import March, march
from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.generators.nerf.regularisers import Regulariser
from scoredistill.generators.nerf.sampling import Rays, sample_rays
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh, marching_cubes
from scoredistill.rendering.volume import accumulate
from scoredistill.types import Batch, Sample


@dataclass(frozen=True)
class Render:
    """Pictures of n particles from V views.

    Args:
        rgb: (n, V, 3, H, W) in [-1, 1], over the background.
        opacity: (n, V, H, W) in [0, 1].
        depth: (n, V, H, W) mean distance from the camera of what is seen, 0 where opacity is under one tenth.
        normals: (n, V, 3, H, W) outward unit normals in world axes, 0 where opacity is under one tenth.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor


class NeRF(Generator):
    """n neural radiance fields in [-1, 1]^3.

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934. The rows of a
    batch are particle-major: row = particle · V + view.

    Args:
        particles: number of scenes n, >= 1.
        encoding: features of a point; default a dense grid of 64^3.
        head: from features to density and colour; default none for 4 features, a small network otherwise.
        initial: density before training; default a soft ball.
        activation: from raw value to density.
        background: what is seen behind the object; default white or, half of the time, a random colour.
        occupancy: how empty space is skipped; default a grid of 64^3.
        skip: whether empty space is skipped at all.
        regularisers: penalties, each with its weight.
        resolution: height and width of the training pictures, constant or over training.
        samples: parts into which each ray's way through the box is cut, constant or over training.
        chunk: most field samples evaluated at once; more of them trade time for bounded memory.
        seed: of everything that is drawn at the start.
        identical: start all particles alike.
    """

    particles: int
    _progress: Tensor

    def __init__(
        self,
        particles: int = 1,
        encoding: Encoding | None = None,
        head: Head | None = None,
        initial: Initial | None = None,
        activation: Activation = "exp",
        background: Background | None = None,
        occupancy: Occupancy | None = None,
        skip: bool = True,
        regularisers: Sequence[Regulariser] = (),
        resolution: int | Piecewise = 64,
        samples: int | Piecewise = 64,
        chunk: int = 2**19,
        seed: int = 0,
        identical: bool = False,
    ) -> None:
        super().__init__()
        if particles < 1 or chunk < 1:
            raise ValueError(f"need particles >= 1 and chunk >= 1, got {particles} and {chunk}")
        self.particles, self.chunk = particles, chunk
        # Copies, so that one configured part can serve several NeRFs without their sharing its parameters.
        encoding = deepcopy(encoding or DenseGrid())
        head = deepcopy(head or (DirectHead() if encoding.features == 4 else MLPHead()))
        self.field = Field(encoding, head, deepcopy(initial or DensityBlob()), activation)
        self.background = deepcopy(background or RandomBackground())
        self.occupancy = deepcopy(occupancy or Occupancy()) if skip else None
        self.regularisers = tuple(regularisers)
        self._resolution, self._samples = resolution, samples
        self.register_buffer("_progress", torch.zeros((), dtype=torch.float64))
        self._allocate(torch.Generator().manual_seed(seed), identical)

    def _allocate(self, rng: torch.Generator, identical: bool) -> None:
        n = self.particles
        self.field.encoding.allocate(n, rng)
        self.field.head.allocate(n, self.field.encoding.features, rng)
        self.field.initial.allocate(n, rng)
        self.background.allocate(n, rng)
        if identical:
            for tensor in (*self.field.parameters(), *self.field.buffers(), *self.background.parameters()):
                tensor.data[1:] = tensor.data[:1]
        if self.occupancy is not None:
            self.occupancy.allocate(n, rng)

    def on_progress(self, step: int, progress: float, rng: torch.Generator | None = None) -> None:
        self._progress.fill_(progress)
        if self.occupancy is not None and step % self.occupancy.every == 0:
            self.occupancy.update(self._density, rng, self.chunk)

    @property
    def progress(self) -> float:
        """Fraction of training done, on which resolution, samples and regularisers depend; a buffer, to be resumed."""
        return float(self._progress)

    @property
    def resolution(self) -> int:
        """Height and width of the training pictures at present."""
        return round(at_progress(self._resolution, self.progress))

    @property
    def samples(self) -> int:
        """Parts into which a ray is cut at present."""
        return round(at_progress(self._samples, self.progress))

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Render every particle from every camera of the batch.

        Args:
            batch: its condition's camera has V rows; other fields are for the whole batch or for each of the V. A
                background in it replaces the generator's own.
            rng: CPU generator of the samples' offsets and of random backgrounds; None: torch's global one.

        Returns:
            n V samples (n V, 3, H, W), with the background's colour in their condition where a view has one colour.

        Raises:
            ValueError: if the batch has no camera.
        """
        if batch.condition is None or batch.condition.camera is None:
            raise ValueError("NeRF needs a batch whose condition has a camera")
        rng = torch.default_generator if rng is None else rng
        n, views, size = self.particles, len(batch.condition.camera), self.resolution
        rays, directions = self._rays(batch.condition.camera, size, size)
        active = [r for r in self.regularisers if at_progress(r.weight, self.progress) != 0]
        found = self._march(rays, rng, any(r.needs_normals for r in active))
        behind = self._behind(directions, rng, batch.condition.background)
        x = self._over(found, behind).unflatten(2, (size, size)).permute(0, 1, 4, 2, 3).flatten(0, 1)
        view = torch.arange(views, device=x.device).repeat(n)
        condition = batch.condition[view]
        one_colour = behind.shape[2] == 1
        condition = replace(condition, background=behind.flatten(0, 2).to(x.dtype) if one_colour else None)
        penalties = [at_progress(r.weight, self.progress) * r(found, self.field) for r in active]
        particle = torch.arange(n, device=x.device).repeat_interleave(views)
        return Sample(x, condition, particle, view, regulariser=torch.stack(penalties).sum() if penalties else None)

    @torch.no_grad()
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        """Pictures without randomness: samples in the middle of their parts, the background's fixed colour.

        Args:
            camera: V views.
            height, width: of the pictures.
            background: (3,) or (V, 3) colour in [-1, 1] in place of the generator's background.
        """
        if background is not None:
            background = background.expand(len(camera), 3)
        views = []
        for v in range(len(camera)):
            rays, directions = self._rays(camera[torch.tensor([v])], height, width)
            found = self._march(rays, None, normals=True)
            behind = self._behind(directions, None, None if background is None else background[v : v + 1])
            assert found.normals is not None
            normals = accumulate(found.weights, found.row, len(found.opacity), found.normals)
            opacity = found.opacity[:, None]
            shape = torch.cat([normalize(normals, dim=1), found.distance[:, None] / opacity.clamp(min=0.1)], dim=1)
            columns = [self._over(found, behind).flatten(0, 2), opacity, torch.where(opacity < 0.1, 0, shape)]
            views.append(torch.cat(columns, dim=1).view(self.particles, height, width, 8).permute(0, 3, 1, 2))
        rgb, opacity, normals, depth = torch.stack(views, dim=1).split((3, 1, 3, 1), dim=2)
        return Render(rgb, opacity[:, :, 0], depth[:, :, 0], normals)

    def density(self, points: Tensor, particle: int) -> Tensor:
        """Density of one particle's scene.

        Args:
            points: (P, 3) in [-1, 1]^3.
            particle: its index.

        Returns:
            (P,) per world unit, differentiable.
        """
        return self._density(points, torch.full_like(points[:, 0], particle, dtype=torch.long))

    @torch.no_grad()
    def mesh(self, particle: int, resolution: int = 128, threshold: float | None = None) -> Mesh:
        """The surface of one particle's scene, coloured at its vertices.

        Args:
            particle: its index.
            resolution: lattice points along each axis.
            threshold: density at the surface; default that at which half of the light is lost over two cells of a 64^3
                lattice, or half of the highest density if that is less.
        """
        axis = torch.linspace(-1, 1, resolution).to(self._like)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        values = torch.cat([self.density(p, particle) for p in points.split(self.chunk)])
        if threshold is None:
            threshold = min(log(2) * 16, float(values.max()) / 2)
        # Density grows exponentially through a surface: its logarithm is what interpolates well between points.
        values = values.clamp(min=1e-10).log().view(resolution, resolution, resolution)
        mesh = marching_cubes(values, log(max(threshold, 1e-9)))
        at = mesh.vertices.to(self._like)
        _, colours = self.field(at, torch.full_like(at[:, 0], particle, dtype=torch.long))
        return replace(mesh, colors=colours.to(mesh.vertices))

    @property
    def _like(self) -> Tensor:
        """A tensor with the dtype and device that rays have to have."""
        return next(self.field.parameters())

    def _density(self, points: Tensor, particle: Tensor) -> Tensor:
        return self.field(points, particle)[0]

    def _rays(self, camera: Camera, height: int, width: int) -> tuple[Rays, Tensor]:
        origins, directions = camera.rays(height, width)
        origins, directions = origins.to(self._like), directions.to(self._like)
        return Rays(origins.reshape(-1, 3), directions.reshape(-1, 3)), directions.flatten(1, 2)

    def _march(self, rays: Rays, rng: torch.Generator | None, normals: bool) -> March:
        with torch.no_grad():
            samples = sample_rays(rays, self.particles, self.samples, self.occupancy, rng)
        return march(self.field, samples, rays.directions, self.particles, self.chunk, normals)

    def _behind(self, directions: Tensor, rng: torch.Generator | None, given: Tensor | None) -> Tensor:
        """(n, V, 1 or HW, 3) colours of the background."""
        if given is not None:
            return given.to(directions)[None, :, None].expand(self.particles, -1, 1, 3)
        return self.background(directions, self.particles, rng)

    def _over(self, found: March, behind: Tensor) -> Tensor:
        """The march over the background, (n, V, HW, 3)."""
        shape = (self.particles, behind.shape[1], -1)
        return found.colour.view(*shape, 3) + (1 - found.opacity.view(*shape, 1)) * behind
