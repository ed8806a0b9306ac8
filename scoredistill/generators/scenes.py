"""The base class of generators of 3D scenes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from scoredistill.annealing import Piecewise, at_progress
from scoredistill.generators.generator import Generator
from scoredistill.networks.modules import Precise
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera, Render
from scoredistill.rendering.mesh import Mesh
from scoredistill.types import Batch, Condition, Sample


class SceneGenerator(Precise, Generator):
    """n 3D scenes in [-1, 1]^3, rendered from cameras: radiance fields or meshes.

    The rows of a batch are particle-major: row = particle · V + view. A subclass implements `forward`, `render`, `mesh`
    and `color`. One that composites over `_background` has a `background`, a module of `generators.fields`.

    Args:
        particles: number of scenes n, >= 1.
        resolution: height and width of the training pictures, >= 1, constant or annealed.
    """

    particles: int
    background: nn.Module
    latents: int | None = None
    """Number of latent channels, for scenes of an autoencoder's latents; None: scenes of colors."""
    solid_radius: float = 0.0
    """Radius of the ball around the origin that is solid at first, where no camera may be; 0: none."""

    def __init__(self, particles: int, resolution: int | Piecewise) -> None:
        require(">= 1", particles=particles, resolution=resolution)
        super().__init__()
        self.particles = particles
        self._resolution = resolution

    @property
    def resolution(self) -> int:
        """Current height and width of the training pictures."""
        return round(at_progress(self._resolution, self.progress))

    def _view(self, batch: Batch) -> tuple[Condition, Camera]:
        """The batch's condition and its V cameras.

        Raises:
            ValueError: if there is no camera.
        """
        if batch.condition is None or batch.condition.camera is None:
            raise ValueError(f"{type(self).__name__} needs a batch whose condition has a camera")
        return batch.condition, batch.condition.camera

    def _background(self, directions: Tensor, drawn: Tensor | None, color: Tensor | None) -> Tensor:
        """Background colors, (n, V, 1 or H W, C).

        Args:
            directions: (V, H W, 3) unit directions of the rays.
            drawn: (V, 4) uniform random numbers; None: deterministic.
            color: (V, 3) replaces the generator's background; None: it does not.
        """
        if color is not None:
            return color.to(directions)[None, :, None].expand(self.particles, -1, 1, 3)
        background_color: Tensor = self.background(directions, self.particles, drawn)
        return background_color

    def _as_sample(
        self, x: Tensor, condition: Condition, background_color: Tensor, regularizer: Tensor | None
    ) -> Sample:
        """Rendered pictures as a sample with one row per particle and view.

        Args:
            x: (n, V, C, H, W).
            condition: V rows.
            background_color: (n, V, 1 or H W, C). If each view has one color, it becomes the condition's background.
            regularizer: scalar penalty, or None.
        """
        n, views = x.shape[:2]
        view_index = torch.arange(views, device=x.device).repeat(n)
        one_color = background_color.shape[2] == 1
        background = background_color.flatten(0, 2).to(x.dtype) if one_color else None
        particle = (self.first_particle + torch.arange(n, device=x.device)).repeat_interleave(views)
        condition = replace(condition[view_index], background=background)
        return Sample(x.flatten(0, 1), condition, particle, view_index, regularizer=regularizer)

    @abstractmethod
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        """Render pictures without randomness and without gradient. Random backgrounds have their fixed color.

        Args:
            camera: V views.
            height, width: size of the pictures in pixels.
            background: (3,) or (V, 3) color in [-1, 1] that replaces the generator's background; None: it does not.
        """

    @abstractmethod
    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """Extract one particle's surface, with colors at its vertices.

        Args:
            particle: index of the particle.
            resolution: lattice points along each axis, >= 2; None: the generator chooses.
            threshold: value of the generator's field at the surface; None: the generator chooses.

        Raises:
            NoSurfaceError: if there is no surface, for example in an empty scene.
        """

    @abstractmethod
    def color(self, points: Tensor, particle: int) -> Tensor:
        """Colors of one particle's scene, without gradient.

        Args:
            points: (P, 3) in world units.
            particle: index of the particle.

        Returns:
            (P, 3) in [-1, 1].
        """
