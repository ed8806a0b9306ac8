"""The generator of meshes by deep marching tetrahedra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.annealing import Piecewise
from scoredistill.generators.dmtet.geometry import Geometry
from scoredistill.generators.dmtet.initial_surface import Ellipsoid, InitialShape
from scoredistill.generators.dmtet.shading import Shading, Trained, View, require_effect
from scoredistill.generators.dmtet.surface_regularizers import SurfaceRegularizer, total
from scoredistill.generators.dmtet.texture import Texture
from scoredistill.generators.fields.background import Background, RandomBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead
from scoredistill.generators.generator import Generator
from scoredistill.generators.nerf.nerf import NeRF
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera, Render
from scoredistill.rendering.mesh import Mesh
from scoredistill.types import Batch, Sample


class DMTet(SceneGenerator):
    """n meshes in [-1, 1]^3 with textures, rendered in one batched call. The surface of a tetrahedral grid is

        signed distance = 0

    "Deep Marching Tetrahedra: a Hybrid Representation for High-Resolution 3D Shape Synthesis" (2021), arXiv:2111.04276;
    geometry and texture in stages as in "ProlificDreamer" (2023), arXiv:2305.16213. The rows of a batch are
    particle-major: row = particle · V + view. Each particle's grid is in a box, which initialization from a density
    makes tight.

    Args:
        particles: number of meshes n, >= 1.
        grid: cells along each axis, >= 2. A particle's grid has (grid + 1)^3 points of four numbers.
        shift: share of a cell by which grid points may move along each axis, in [0, 1/6).
        initial: the surface before training; None: a ball.
        encoding: features of a point of the texture; None: a dense grid of 64^3.
        head: from features to color; None: `DirectHead` for 4 features, else a small network.
        color_variation: standard deviation of a particle's color logits, >= 0.
        background: colors behind the object; None: white or, with probability one half, a random color.
        train: the trained parameters: geometry, texture or both.
        shading: pictures of albedo or of normals; with normals there is no texture to train.
        regularizers: penalties on the surface, each with its weight.
        resolution: height and width of the training pictures, >= 1, constant or annealed.
        seed: random seed of the initialization, in [0, 2^32).
        identical: start all particles equal.

    Raises:
        ValueError: if a setting is outside its range, or has no effect in combination with the others.
    """

    background: Background

    def __init__(
        self,
        particles: int = 1,
        grid: int = 64,
        shift: float = 0.15,
        initial: InitialShape | None = None,
        encoding: Encoding | None = None,
        head: Head | None = None,
        color_variation: float = 0.5,
        background: Background | None = None,
        train: Trained = "both",
        shading: Shading = "albedo",
        regularizers: Sequence[SurfaceRegularizer] = (),
        resolution: int | Piecewise = 64,
        seed: int = 0,
        identical: bool = False,
    ) -> None:
        require(">= 1", particles=particles, resolution=resolution)
        require(">= 2", grid=grid)
        require("[0, 1/6)", shift=shift)
        require(">= 0", color_variation=color_variation)
        require("[0, 2^32)", seed=seed)
        super().__init__(particles, resolution)
        require_effect(train, shading, bool(regularizers))
        self.shading = shading
        self.regularizers = tuple(regularizers)
        rng = torch.Generator().manual_seed(seed)
        axis = torch.linspace(-1, 1, grid + 1)
        initial = initial or Ellipsoid()
        self.solid_radius = initial.solid_radius
        self.geometry = Geometry(initial(axis, particles, rng), shift)
        encoding = deepcopy(encoding or DenseGrid())
        head = deepcopy(head or (DirectHead() if encoding.features == 4 else MLPHead()))
        encoding.allocate(particles, rng)
        head.allocate(particles, encoding.features, rng)
        self.texture = Texture(encoding, head, color_variation * torch.randn(particles, 3, generator=rng))
        self.background = deepcopy(background or RandomBackground())
        self.background.allocate(particles, rng)
        if identical:
            parts = (self.geometry, self.texture, self.background)
            for tensor in (t for part in parts for t in (*part.parameters(), *part.buffers())):
                tensor.data[1:] = tensor.data[:1]
        self.geometry.requires_grad_(train != "texture")
        self.texture.requires_grad_(train != "geometry")

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        """Render every particle from every camera of the batch.

        Args:
            batch: its condition's camera has V rows, and other fields of the condition have one row or V rows. The
                condition's background, if any, replaces the generator's.
            rng: CPU generator for random backgrounds, None: torch's global one. In evaluation mode nothing is random.

        Returns:
            n V samples (n V, 3, H, W). If each view has one background color, their condition contains it. A particle
            without a surface shows only the background.

        Raises:
            ValueError: if the batch has no camera.
        """
        condition, camera = self._view(batch)
        size = self.resolution
        camera, directions = self._rays(camera, size, size)
        drawn = batch.uniform((4,), rng).to(directions) if self.training else None
        background_color = self._background(directions, drawn, condition.background)
        surface = self.geometry.surface()
        view = View.of(self.geometry.placed(surface), camera, size, size)
        x, _ = view.composite_over(self._shaded(view), background_color)
        regularizer = total(self.regularizers, surface, self.progress)
        return self._as_sample(x, condition, background_color, regularizer)

    @torch.no_grad()
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        if background is not None:
            background = background.expand(len(camera), 3)
        surface = self.geometry.placed(self.geometry.surface())
        parts = []
        for v in range(len(camera)):
            one, directions = self._rays(camera[torch.tensor([v])], height, width)
            background_color = self._background(directions, None, None if background is None else background[v : v + 1])
            view = View.of(surface, one, height, width)
            rgb, opacity = view.composite_over(self._shaded(view), background_color)
            visible = opacity >= 0.1
            normals = view.normals.unflatten(0, (-1, 1)) * visible[:, :, None]
            parts.append((rgb, opacity, view.distance(one) * visible, normals))
        return Render(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))

    @torch.no_grad()
    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """Extract one particle's mesh, with colors at its vertices.

        Args:
            particle: index of the particle.
            resolution: lattice points along each axis to which the grid is resampled, >= 2; None: the grid itself.
            threshold: signed distance at the surface, in units of half the side of the particle's box; None: 0.

        Raises:
            NoSurfaceError: if there is no surface. The message suggests a threshold.
        """
        mesh = self.geometry.mesh(particle, resolution, threshold or 0.0)
        return replace(mesh, colors=(self.color(mesh.vertices, particle) + 1) / 2)

    @torch.no_grad()
    def color(self, points: Tensor, particle: int) -> Tensor:
        place = points.to(self.texture.bias)
        return self.texture(place, torch.full_like(place[:, 0], particle, dtype=torch.long)).to(points)

    def start_from(self, other: Generator) -> None:
        """Initialize from the meshes of another DMTet with any grid, or from the surfaces and colors of a NeRF.

        Colors are copied if encoding and head are the same, and fitted otherwise. Backgrounds are not changed.

        Args:
            other: a generator with the same number of particles; it is moved to this generator's device.

        Raises:
            ValueError: if it is of another kind or has another number of particles.
            NoSurfaceError: if a NeRF has no surface. The message gives the range of densities.
        """
        if other.particles != self.particles or not isinstance(other, DMTet | NeRF):
            raise ValueError(
                f"a DMTet of {self.particles} particles starts from a DMTet or a NeRF with the same number of "
                f"particles; this {type(other).__name__} has {other.particles or 'none'}"
            )
        other.to(self.texture.bias.device)
        if isinstance(other, DMTet):
            self.geometry.take(other.geometry)
            self._take_colors(other.color, other.texture)
        else:
            self.take_shape(other.density)
            if not other.latents:
                self._take_colors(other.color, Texture.of(other.field, self.particles))

    def take_shape(
        self,
        density: Callable[[Tensor, int], Tensor],
        color: Callable[[Tensor, int], Tensor] | None = None,
        threshold: float | None = None,
    ) -> None:
        """Initialize from the surfaces of scenes with a density, and from the colors near them. Makes boxes tight.

        Args:
            density: from points (P, 3) in [-1, 1]^3 and a particle's index to density (P,) per world unit.
            color: from the same to colors (P, 3) in [-1, 1]; None: the texture is not changed.
            threshold: density at the surface; None: the one that best separates occupied points from empty ones.

        Raises:
            NoSurfaceError: if a particle has no surface. The message suggests a threshold.
        """
        self.geometry.take_density(density, threshold)
        if color is not None:
            self._take_colors(color)

    def _take_colors(self, color: Callable[[Tensor, int], Tensor], source: Texture | None = None) -> None:
        with torch.no_grad():
            surface = self.geometry.placed(self.geometry.surface())
        near = surface.vertices.split(surface.vertex_counts)
        if source is None or not self.texture.copy(source, surface.vertices, surface.particle):
            self.texture.fit(color, near, surface.cell * float(self.geometry.scale.mean()))

    def _rays(self, camera: Camera, height: int, width: int) -> tuple[Camera, Tensor]:
        """The camera in the parameters' dtype and device, and its rays' directions (V, H W, 3)."""
        like = self.geometry.grid.distance
        camera = Camera(camera.pose.to(like), camera.fov.to(like))
        return camera, camera.rays(height, width)[1].flatten(1, 2)

    def _shaded(self, view: View) -> Tensor:
        return view.normals if self.shading == "normals" else view.albedo(self.texture)
