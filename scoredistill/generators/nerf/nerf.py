"""n neural radiance fields, rendered in one batched call."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.annealing import Piecewise, at_progress
from scoredistill.generators.fields.background import Background, RandomBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead
from scoredistill.generators.nerf.field import Activation, Field
from scoredistill.generators.nerf.initial import DensityBlob, Initial
from scoredistill.generators.nerf.march import March, Tensors, all_sums, channels, march_in_blocks
from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.generators.nerf.regularizers import Regularizer, penalties_and_counts
from scoredistill.generators.nerf.sampling import Block, Rays, RaySampler
from scoredistill.generators.nerf.surface import colors, surface
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.picture import Render, composite_over
from scoredistill.types import Batch, Sample, Shard


class NeRF(SceneGenerator):
    """n neural radiance fields in [-1, 1]^3.

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934. The rows of a
    batch are particle-major: row = particle · V + view.

    Args:
        particles: number of scenes n, >= 1.
        encoding: features of a point; default a dense grid of 64^3.
        head: from features to density and color; default none for 4 features, a small network otherwise.
        initial: density before training; default a soft ball.
        activation: from raw value to density.
        background: what is seen background_color the object; default white or, half of the time, a random color.
        occupancy: how empty space is skipped; default a grid of 64^3.
        skip: whether empty space is skipped at all.
        regularizers: penalties, each with its weight.
        resolution: height and width of the training pictures, >= 1, constant or over training.
        samples: parts into which each ray's way through the box is cut, >= 1, constant or over training.
        chunk: most samples held at once, of all particles together, but at least one ray's, >= 1. Where a training step
            has more, they are worked out again in the backward pass: time for bounded memory.
        seed: of everything that is drawn at the start, in [0, 2^32).
        identical: start all particles alike.
        latents: channels of an autoencoder's latents, of which the scenes are made in place of colors, not 3, >= 4;
            the pictures that they render go to the teacher as they are. null: colors.
    """

    background: Background

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
        regularizers: Sequence[Regularizer] = (),
        resolution: int | Piecewise = 64,
        samples: int | Piecewise = 64,
        chunk: int = 2**19,
        seed: int = 0,
        identical: bool = False,
        latents: int | None = None,
    ) -> None:
        require(">= 1", particles=particles, resolution=resolution, samples=samples, chunk=chunk)
        require("[0, 2^32)", seed=seed)
        require(">= 4", latents=latents)
        super().__init__(particles, resolution)
        self.chunk, self.latents = chunk, latents
        # Copies, so that one configured part can serve several NeRFs without their sharing its parameters.
        encoding = deepcopy(encoding or DenseGrid())
        head = deepcopy(head or (DirectHead() if encoding.features == 1 + (latents or 3) else MLPHead()))
        self.field = Field(encoding, head, deepcopy(initial or DensityBlob()), activation, latents is not None)
        self.background = deepcopy(background or RandomBackground())
        self.occupancy = deepcopy(occupancy or Occupancy()) if skip else None
        self.regularizers = tuple(regularizers)
        self._samples = samples
        self._allocate(torch.Generator().manual_seed(seed), identical)

    def _allocate(self, rng: torch.Generator, identical: bool) -> None:
        n, channels = self.particles, self.latents or 3
        self.field.encoding.allocate(n, rng)
        self.field.head.allocate(n, self.field.encoding.features, rng, channels)
        self.field.initial.allocate(n, rng, channels)
        self.solid_radius = self.field.initial.solid_radius
        self.background.allocate(n, rng, channels)
        if identical:
            for tensor in (*self.field.parameters(), *self.field.buffers(), *self.background.parameters()):
                tensor.data[1:] = tensor.data[:1]
        if self.occupancy is not None:
            self.occupancy.allocate(n, rng)

    def on_progress(self, step: int, progress: float, rng: torch.Generator | None = None) -> None:
        super().on_progress(step, progress, rng)
        if self.occupancy is not None and step % self.occupancy.every == 0:
            self.occupancy.update(self._density, rng, self.chunk)

    @property
    def samples(self) -> int:
        """Parts into which a ray is cut at present."""
        return round(at_progress(self._samples, self.progress))

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Render every particle from every camera of the batch.

        Args:
            batch: its condition's camera has V rows; other fields are for the whole batch or for each of the V. A
                background in it replaces the generator's own.
            rng: CPU generator of the samples' offsets and of random backgrounds, None: torch's global one; in
                evaluation mode nothing is random.

        Returns:
            n V samples (n V, 3, H, W), or latents (n V, C, H, W), with the background's color in their condition where
            a view has one color.

        Raises:
            ValueError: if the batch has no camera.
        """
        if batch.condition is None or batch.condition.camera is None:
            raise ValueError("NeRF needs a batch whose condition has a camera")
        n, views, size = self.particles, len(batch.condition.camera), self.resolution
        rays, directions = self._rays(batch.condition.camera, size, size)
        active = [r for r in self.regularizers if at_progress(r.weight, self.progress) != 0]
        drawn = batch.uniform((size * size + 4,), rng).to(rays.origins) if self.training else None
        offset, random = (None, None) if drawn is None else (drawn[:, 4:].flatten(), drawn[:, :4])
        sampler = RaySampler(rays, n, self.samples, self.occupancy, offset)

        def look(found: March, block: Block) -> Tensors:
            penalties = penalties_and_counts(active, found, self.field, block.first == 0)
            return found.color.unflatten(0, (n, -1)), found.opacity.view(n, -1), penalties

        needs_normals = any(r.needs_normals for r in active)
        color, opacity, penalties = march_in_blocks(self.field, sampler, self.chunk, needs_normals, look)
        background_color = self._background(directions, random, batch.condition.background)
        x = composite_over(torch.cat(color, 1), torch.cat(opacity, 1), background_color)
        x = x.unflatten(2, (size, size)).permute(0, 1, 4, 2, 3).flatten(0, 1)
        view = torch.arange(views, device=x.device).repeat(n)
        condition = batch.condition[view]
        one_color = background_color.shape[2] == 1
        condition = replace(condition, background=background_color.flatten(0, 2).to(x.dtype) if one_color else None)
        particle = (self.first_particle + torch.arange(n, device=x.device)).repeat_interleave(views)
        regularizer = self._regularizer(active, penalties, batch.shard)
        return Sample(x, condition, particle, view, regularizer=regularizer)

    @torch.no_grad()
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        """Pictures without randomness: samples in the middle of their parts, the background's fixed color.

        Args:
            camera: V views.
            height, width: of the pictures.
            background: (3,) or (V, 3) color in [-1, 1] in place of the generator's background.
        """
        if background is not None:
            background = background.expand(len(camera), 3)
        views = []
        for v in range(len(camera)):
            rays, directions = self._rays(camera[torch.tensor([v])], height, width)
            sampler = RaySampler(rays, self.particles, self.samples, self.occupancy)
            blocks = march_in_blocks(self.field, sampler, self.chunk, True, all_sums)
            background_color = self._background(directions, None, None if background is None else background[v : v + 1])
            view = channels([torch.cat(parts, dim=1) for parts in blocks], background_color)
            views.append(view.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        rgb, opacity, depth, normals = torch.stack(views, dim=1).split((self.latents or 3, 1, 1, 3), dim=2)
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

    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """The surface of one particle's scene, colored at its vertices.

        Args:
            particle: its index.
            resolution: lattice points along each axis, >= 2; None: 128.
            threshold: density at the surface; None: that at which half of the light is lost over two cells of a 64^3
                lattice, or half of the highest density if that is less.

        Raises:
            NoSurfaceError: if there is none, the scene being empty for example.
        """
        points = 128 if resolution is None else resolution
        require(">= 2", resolution=points)
        return surface(self.field, particle, points, threshold, self.chunk)

    def color(self, points: Tensor, particle: int) -> Tensor:
        # A point beyond [-1, 1]^3 has the color of the box's nearest one.
        return colors(self.field, points, particle, self.chunk)

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

    def _regularizer(self, active: Sequence[Regularizer], blocks: Sequence[Tensor], shard: Shard) -> Tensor | None:
        """The weighted sum of the penalties, from every block's `penalties_and_counts`."""
        if not active:
            return None
        penalty, count = torch.stack(list(blocks)).sum(0).unbind(1)
        weights = penalty.new_tensor([at_progress(r.weight, self.progress) for r in active])
        # The mean of this over the shards is the penalty over the count of all of them.
        return (weights * penalty / (shard.sum(count).clamp(min=1) / shard.parts)).sum()
