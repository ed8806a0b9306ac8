"""What generators of 3D scenes have in common."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from scoredistill.generators.base import Generator
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.picture import Render


class SceneGenerator(Generator):
    """n scenes in [-1, 1]^3 that cameras look at: radiance fields or meshes.

    The rows of a batch are particle-major: row = particle · V + view. A subclass implements `forward`, `render`, `mesh`
    and `colour`.
    """

    particles: int
    latents: int | None = None
    """Channels of an autoencoder's latents that the scenes are made of in place of colours; None: colours."""

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Height and width of the training pictures at present."""

    @abstractmethod
    def render(self, camera: Camera, height: int, width: int, background: Tensor | None = None) -> Render:
        """Pictures without randomness and without gradient: the background's fixed colour.

        Args:
            camera: V views.
            height, width: of the pictures.
            background: (3,) or (V, 3) colour in [-1, 1] in place of the generator's background.
        """

    @abstractmethod
    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        """One particle's surface, coloured at its vertices.

        Args:
            particle: its index.
            resolution: lattice points along each axis, >= 2; None: the generator's own choice.
            threshold: value of the generator's field at the surface; None: its own choice.

        Raises:
            NoSurfaceError: if there is none, the scene being empty for example.
        """

    @abstractmethod
    def colour(self, points: Tensor, particle: int) -> Tensor:
        """Colours of one particle's scene, without gradient.

        Args:
            points: (P, 3) in world units.
            particle: its index.

        Returns:
            (P, 3) in [-1, 1].
        """
