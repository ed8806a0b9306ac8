"""The generator of neural radiance fields."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from scoredistill.annealing import Piecewise, at_progress
from scoredistill.generators.fields.background import Background, RandomBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead
from scoredistill.generators.nerf.field import Activation, Field, colors, surface
from scoredistill.generators.nerf.initial_density import DensityBlob, Initial
from scoredistill.generators.nerf.march import March, Tensors, all_sums, channels, march_in_blocks
from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.generators.nerf.ray_sampling import Block, Rays, RaySampler
from scoredistill.generators.nerf.regularizers import Regularizer, penalties_and_counts
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera, Render, composite_over
from scoredistill.rendering.mesh import Mesh
from scoredistill.types import Batch, Sample, Shard


class NeRF(SceneGenerator):
    """n neural radiance fields in [-1, 1]^3, rendered in one batched call.

    "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis" (2020), arXiv:2003.08934. The rows of a
    batch are particle-major: row = particle · V + view.

    Args:
        particles: number of scenes n, >= 1.
        encoding: features of a point; None: a dense grid of 64^3.
        head: from features to density and color; None: `DirectHead` if the encoding has 1 + C features (4 for colors),
            else a small network.
        initial: density before training; None: a soft ball.
        activation: from raw value to density.
        background: colors behind the object; None: white or, with probability one half, a random color.
        occupancy: grid for skipping empty space; None: a grid of 64^3.
        skip: whether empty space is skipped.
        regularizers: penalties, each with its weight.
        resolution: height and width of the training pictures, >= 1, constant or annealed.
        samples: number of samples per ray, one in each of as many equal parts of its path through the box, >= 1,
            constant or annealed.
        chunk: maximum number of samples in memory over all particles, but at least those of one ray, >= 1. If a
            training step has more, they are recomputed in the backward pass, which saves memory and costs time.
        seed: random seed of the initialization, in [0, 2^32).
        identical: start all particles equal.
        latents: number of latent channels of the teacher's autoencoder, for scenes of latents in place of colors, not
            3, >= 4; their pictures go to the teacher without encoding. None: colors.
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
        self.chunk = chunk
        self.latents = latents
        # Copies, so that NeRFs built from the same parts do not share parameters.
        encoding = deepcopy(encoding or DenseGrid())
        head = deepcopy(head or (DirectHead() if encoding.features == 1 + (latents or 3) else MLPHead()))
        self.field = Field(encoding, head, deepcopy(initial or DensityBlob()), activation, latents is not None)
        self.background = deepcopy(background or RandomBackground())
        self.occupancy = deepcopy(occupancy or Occupancy()) if skip else None
        self.regularizers = tuple(regularizers)
        self._samples = samples
        self._allocate(torch.Generator().manual_seed(seed), identical)

    def _allocate(self, rng: torch.Generator, identical: bool) -> None:
        n = self.particles
        channels = self.latents or 3
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
        """Current number of samples per ray."""
        return round(at_progress(self._samples, self.progress))

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Render every particle from every camera of the batch.

        Args:
            batch: its condition's camera has V rows, and other fields of the condition have one row or V rows. The
                condition's background, if any, replaces the generator's.
            rng: CPU generator for the samples' offsets and random backgrounds, None: torch's global one. In evaluation
                mode nothing is random.

        Returns:
            n V samples (n V, 3, H, W), or latents (n V, C, H, W). If each view has one background color, their
            condition contains it.

        Raises:
            ValueError: if the batch has no camera.
        """
        condition, camera = self._view(batch)
        n, size = self.particles, self.resolution
        rays, directions = self._rays(camera, size, size)
        active = [r for r in self.regularizers if at_progress(r.weight, self.progress) != 0]
        drawn = batch.uniform((size * size + 4,), rng).to(rays.origins) if self.training else None
        offset, random = (None, None) if drawn is None else (drawn[:, 4:].flatten(), drawn[:, :4])
        sampler = RaySampler(rays, n, self.samples, self.occupancy, offset)

        def reduce(result: March, block: Block) -> Tensors:
            penalties = penalties_and_counts(active, result, self.field, block.first == 0)
            return result.color.unflatten(0, (n, -1)), result.opacity.view(n, -1), penalties

        needs_normals = any(r.needs_normals for r in active)
        color, opacity, penalties = march_in_blocks(self.field, sampler, self.chunk, needs_normals, reduce)
        background_color = self._background(directions, random, condition.background)
        x = composite_over(torch.cat(color, 1), torch.cat(opacity, 1), background_color)
        x = x.unflatten(2, (size, size)).permute(0, 1, 4, 2, 3)
        return self._as_sample(x, condition, background_color, self._regularizer(active, penalties, batch.shard))

    @torch.no_grad()
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
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
            particle: index of the particle.

        Returns:
            (P,) per world unit, differentiable.
        """
        return self._density(points, torch.full_like(points[:, 0], particle, dtype=torch.long))

    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """Extract the surface of one particle's scene, with colors at its vertices.

        Args:
            particle: index of the particle.
            resolution: lattice points along each axis, >= 2; None: 128.
            threshold: density at the surface; None: the density at which two cells of a 64^3 lattice absorb half of
                the light, or half of the highest density if that is less.

        Raises:
            NoSurfaceError: if there is no surface, for example in an empty scene.
        """
        points = 128 if resolution is None else resolution
        require(">= 2", resolution=points)
        return surface(self.field, particle, points, threshold, self.chunk)

    def color(self, points: Tensor, particle: int) -> Tensor:
        # A point outside [-1, 1]^3 has the color of the nearest point of the box.
        return colors(self.field, points, particle, self.chunk)

    @property
    def _like(self) -> Tensor:
        """A tensor with the dtype and device of the rays."""
        return next(self.field.parameters())

    def _density(self, points: Tensor, particle: Tensor) -> Tensor:
        return self.field(points, particle)[0]

    def _rays(self, camera: Camera, height: int, width: int) -> tuple[Rays, Tensor]:
        origins, directions = camera.rays(height, width)
        origins, directions = origins.to(self._like), directions.to(self._like)
        return Rays(origins.reshape(-1, 3), directions.reshape(-1, 3)), directions.flatten(1, 2)

    def _regularizer(self, active: Sequence[Regularizer], blocks: Sequence[Tensor], shard: Shard) -> Tensor | None:
        """The weighted sum of the penalties, from the `penalties_and_counts` of all blocks."""
        if not active:
            return None
        penalty, count = torch.stack(list(blocks)).sum(0).unbind(1)
        weights = penalty.new_tensor([at_progress(r.weight, self.progress) for r in active])
        # The mean over the shards is the total penalty over the total count.
        return (weights * penalty / (shard.sum(count).clamp(min=1) / shard.parts)).sum()
