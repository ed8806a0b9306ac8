"""What generators of 3D scenes have in common."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from scoredistill.annealing import Piecewise, at_progress
from scoredistill.generators.generator import Generator
from scoredistill.networks.precise import Precise
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.picture import Render


class SceneGenerator(Precise, Generator):
    """n scenes in [-1, 1]^3 that cameras look at: radiance fields or meshes.

    The rows of a batch are particle-major: row = particle · V + view. A subclass implements `forward`, `render`, `mesh`
    and `color`, and has a `background`.

    Args:
        particles: number of scenes n, >= 1.
        resolution: height and width of the training pictures, >= 1, constant or over training.
    """

    particles: int
    background: nn.Module
    latents: int | None = None
    """Channels of an autoencoder's latents that the scenes are made of in place of colors; None: colors."""
    solid_radius: float = 0.0
    """Radius of the ball around the origin that begins solid, in which no camera belongs; 0: there is none."""

    def __init__(self, particles: int, resolution: int | Piecewise) -> None:
        require(">= 1", particles=particles, resolution=resolution)
        super().__init__()
        self.particles, self._resolution = particles, resolution

    @property
    def resolution(self) -> int:
        """Height and width of the training pictures at present."""
        return round(at_progress(self._resolution, self.progress))

    def _background(self, directions: Tensor, drawn: Tensor | None, given: Tensor | None) -> Tensor:
        """(n, V, 1 or HW, C) colors of the background, or of the one that is given, (V, 3)."""
        if given is not None:
            return given.to(directions)[None, :, None].expand(self.particles, -1, 1, 3)
        background_color: Tensor = self.background(directions, self.particles, drawn)
        return background_color

    @abstractmethod
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        """Pictures without randomness and without gradient: the background's fixed color.

        Args:
            camera: V views.
            height, width: of the pictures.
            background: (3,) or (V, 3) color in [-1, 1] in place of the generator's background.
        """

    @abstractmethod
    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """One particle's surface, colored at its vertices.

        Args:
            particle: its index.
            resolution: lattice points along each axis, >= 2; None: the generator's own choice.
            threshold: value of the generator's field at the surface; None: its own choice.

        Raises:
            NoSurfaceError: if there is none, the scene being empty for example.
        """

    @abstractmethod
    def color(self, points: Tensor, particle: int) -> Tensor:
        """Colors of one particle's scene, without gradient.

        Args:
            points: (P, 3) in world units.
            particle: its index.

        Returns:
            (P, 3) in [-1, 1].
        """
