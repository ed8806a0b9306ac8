"""n meshes by deep marching tetrahedra, rendered in one batched call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.annealing import Piecewise
from scoredistill.generators.dmtet.geometry import Geometry
from scoredistill.generators.dmtet.initial import Ellipsoid, InitialShape
from scoredistill.generators.dmtet.regularizers import SurfaceRegularizer, total
from scoredistill.generators.dmtet.shading import Shading, Trained, View, require_effect
from scoredistill.generators.dmtet.texture import Texture
from scoredistill.generators.fields.background import Background, RandomBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead
from scoredistill.generators.generator import Generator
from scoredistill.generators.nerf.nerf import NeRF
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.picture import Render
from scoredistill.types import Batch, Sample


class DMTet(SceneGenerator):
    """n meshes in [-1, 1]^3: the surfaces signed distance = 0 of tetrahedral grids, with textures.

    "Deep Marching Tetrahedra: a Hybrid Representation for High-Resolution 3D Shape Synthesis" (2021), arXiv:2111.04276;
    geometry and texture in stages as in "ProlificDreamer" (2023), arXiv:2305.16213. The rows of a batch are
    particle-major: row = particle · V + view. Grids lie in boxes of their own, which a start from a density tightens.

    Args:
        particles: number of meshes n, >= 1.
        grid: cells along each axis, >= 2. A particle's grid has (grid + 1)^3 points of four numbers.
        shift: share of a cell by which its points may move along each axis, in [0, 1/6).
        initial: the surface before training; default a ball.
        encoding: features of a point of the texture; default a dense grid of 64^3.
        head: from features to color; default none for 4 features, a small network otherwise.
        color_variation: standard deviation of a particle's color logits, >= 0.
        background: what is seen beside the object; default white or, half of the time, a random color.
        train: geometry, texture or both.
        shading: albedo, or normals, which have no texture to train.
        regularizers: penalties on the surface, each with its weight.
        resolution: height and width of the training pictures, >= 1, constant or over training.
        seed: of everything that is drawn at the start, in [0, 2^32).
        identical: start all particles alike.

    Raises:
        ValueError: for a setting outside its range, or one that has no effect beside the others.
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
            batch: its condition's camera has V rows; other fields are for the whole batch or for each of the V. A
                background in it replaces the generator's own.
            rng: CPU generator of random backgrounds, None: torch's global one; in evaluation mode nothing is random.

        Returns:
            n V samples (n V, 3, H, W), with the background's color in their condition where a view has one color. A
            particle without a surface shows the background alone.

        Raises:
            ValueError: if the batch has no camera.
        """
        if batch.condition is None or batch.condition.camera is None:
            raise ValueError("DMTet needs a batch whose condition has a camera")
        n, size = self.particles, self.resolution
        camera, directions = self._looking(batch.condition.camera, size, size)
        drawn = batch.uniform((4,), rng).to(directions) if self.training else None
        background_color = self._background(directions, drawn, batch.condition.background)
        surface = self.geometry.surface()
        view = View.of(self.geometry.placed(surface), camera, size, size)
        x, _ = view.composite_over(self._shown(view), background_color)
        row = torch.arange(len(camera), device=x.device).repeat(n)
        one_color = background_color.shape[2] == 1
        background = background_color.flatten(0, 2).to(x.dtype) if one_color else None
        condition = replace(batch.condition[row], background=background)
        particle = (self.first_particle + torch.arange(n, device=x.device)).repeat_interleave(len(camera))
        return Sample(
            x.flatten(0, 1), condition, particle, row, regularizer=total(self.regularizers, surface, self.progress)
        )

    @torch.no_grad()
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        if background is not None:
            background = background.expand(len(camera), 3)
        surface, parts = self.geometry.placed(self.geometry.surface()), []
        for v in range(len(camera)):
            one, directions = self._looking(camera[torch.tensor([v])], height, width)
            background_color = self._background(directions, None, None if background is None else background[v : v + 1])
            view = View.of(surface, one, height, width)
            rgb, opacity = view.composite_over(self._shown(view), background_color)
            seen = opacity >= 0.1
            normals = view.normals.unflatten(0, (-1, 1)) * seen[:, :, None]
            parts.append((rgb, opacity, view.distance(one) * seen, normals))
        return Render(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))

    @torch.no_grad()
    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """One particle's mesh, colored at its vertices.

        Args:
            particle: its index.
            resolution: lattice points along each axis at which its grid is read, >= 2; None: the grid's own.
            threshold: signed distance at the surface, in units of the half-side of the particle's box; None: 0.

        Raises:
            NoSurfaceError: if there is none, proposing a threshold.
        """
        mesh = self.geometry.mesh(particle, resolution, threshold or 0.0)
        return replace(mesh, colors=(self.color(mesh.vertices, particle) + 1) / 2)

    @torch.no_grad()
    def color(self, points: Tensor, particle: int) -> Tensor:
        place = points.to(self.texture.bias)
        return self.texture(place, torch.full_like(place[:, 0], particle, dtype=torch.long)).to(points)

    def start_from(self, other: Generator) -> None:
        """Take over the meshes of another DMTet, of any grid, or the surfaces and colors of a NeRF.

        Colors are copied where encoding and head are alike, and learned anew otherwise. Backgrounds are left alone.

        Args:
            other: of as many particles; it is moved to this one's device.

        Raises:
            ValueError: if it is of another kind or has another number of particles.
            NoSurfaceError: if a NeRF has no surface, saying which densities there are.
        """
        if other.particles != self.particles or not isinstance(other, DMTet | NeRF):
            raise ValueError(
                f"a DMTet of {self.particles} particles starts from a DMTet or a NeRF of as many; this is a "
                f"{type(other).__name__} of {other.particles or 'none'}"
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
        """Take over the surfaces, and the colors near them, of scenes that have a density; boxes are tightened.

        Args:
            density: of points (P, 3) in [-1, 1]^3 and a particle's index, (P,) per world unit.
            color: of the same, (P, 3) in [-1, 1]; None: the texture is left alone.
            threshold: density at the surface; None: that which parts occupied from empty places best.

        Raises:
            NoSurfaceError: if a particle has none, proposing a threshold.
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

    def _looking(self, camera: Camera, height: int, width: int) -> tuple[Camera, Tensor]:
        """The camera in the parameters' dtype and device, and its rays' directions (V, H W, 3)."""
        like = self.geometry.grid.distance
        camera = Camera(camera.pose.to(like), camera.fov.to(like))
        return camera, camera.rays(height, width)[1].flatten(1, 2)

    def _shown(self, view: View) -> Tensor:
        return view.normals if self.shading == "normals" else view.albedo(self.texture)
