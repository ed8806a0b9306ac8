"""The embedded teacher: a text- and camera-conditional distribution over pictures with the score in closed form.

    p(x | prompt, camera, background) = sum_k pi_k N(x; mu_k, pixel_std^2 I + F_k^T F_k)
    mu_k = 2 (sum_g light_kg albedo_kg + (1 - opacity_k) (1 + b) / 2) - 1,    F_k = d mu_k / d albedo . color_std

over the K variants of the prompt's noun, rendered from the camera over the background b. For pictures of normals the
mean is n_k + (1 - opacity_k) b, where n_k is the mean outward normal of a pixel's rays, in world axes. Missing
conditions are averaged over: without a camera the canonical ring of cameras, without a prompt all nouns. Guidance,
negative prompts and view words therefore act as with a real model, while all modes, their weights and their geometry
are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoredistill.diffusion.mixture import MixturePosterior
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import MORE_NOISE, CosineSchedule, Schedule, require_noise
from scoredistill.ranges import require
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.mesh import Mesh, marching_cubes
from scoredistill.teachers.gallery.catalog import Pictures, albedo, models, table
from scoredistill.teachers.gallery.mixtures import (
    Group,
    Mixture,
    Settings,
    Shown,
    composite,
    draw,
    groups_of,
    mixtures_of,
    phrases_of,
    posterior,
    variant_weights,
)
from scoredistill.teachers.gallery.scenes import SCENES
from scoredistill.teachers.gallery.table import RADIUS, Table
from scoredistill.teachers.gallery.views import obey
from scoredistill.teachers.gallery.vocabulary import Vocabulary
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Prompt
from scoredistill.types.checks import times_of


@dataclass(frozen=True)
class GalleryRender:
    """The K variants of a prompt from V cameras, without gradients.

    Args:
        rgb: (V, K, 3, H, W) colors or normals over the background, in [-1, 1].
        opacity: (V, K, 1, H, W) covered share of each pixel, in [0, 1].
        depth: (V, K, 1, H, W) distance along the ray through the pixel's center in world units; 0 without a hit.
        normals: (V, K, 3, H, W) outward unit normal in world axes where that ray hits the surface; 0 without a hit.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor


class Gallery(Teacher):
    """Procedural scenes with the exact score of their renders: a text-to-image model without weights.

    Prompts have the form `[a] [size] [color] noun[, front|side|back|overhead view]`, see `vocabulary()`. A color word
    replaces the main color of all variants, and a size word their size. An empty prompt is the unconditional model. If
    a view word contradicts the camera, the camera is turned by the smallest angle that makes the word true. Without a
    camera, a view word restricts the ring of canonical cameras. Labels raise an error; embeddings are ignored.

    Args:
        schedule: noise schedule; None: cosine.
        pixel_std: standard deviation of independent pixel noise, in units of [-1, 1] values, >= 0.
        color_std: standard deviation of each material's albedo in each channel, in display units from 0 to 1, >= 0.
        janus: share of pictures of the object from the opposite azimuth, in [0, 1], which imitates a teacher whose
            training data has more fronts than backs.
        supersample: rays per pixel at edges, >= 1; 1: no antialiasing.
        unconditional_views: canonical cameras over which a prompt without a camera is averaged, a multiple of 4, >= 4.
        background: color for conditions without a background, in [-1, 1].
        cache_bytes: memory for the latest renders in bytes, >= 0.
        shows: colors or normals: the outward unit normal's x, y and z in world axes as red, green and blue.

    Raises:
        ValueError: if a value is outside its range, or color_std is set for pictures of normals.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        pixel_std: float = 0.02,
        color_std: float = 0.0,
        janus: float = 0.0,
        supersample: int = 5,
        unconditional_views: int = 8,
        background: Sequence[float] = (0.7, 0.7, 0.7),
        cache_bytes: int = 1 << 28,
        shows: Shown = "colors",
    ) -> None:
        require(">= 0", pixel_std=pixel_std, color_std=color_std, cache_bytes=cache_bytes)
        require("[0, 1]", janus=janus)
        require(">= 1", supersample=supersample)
        require(">= 4", unconditional_views=unconditional_views)
        require("[-1, 1]", background=background)
        super().__init__(CosineSchedule() if schedule is None else schedule)
        if unconditional_views % 4:
            raise ValueError(f"unconditional_views must be a multiple of 4, got {unconditional_views}")
        if len(background) != 3:
            raise ValueError(f"a background must have three channels; got {tuple(background)}")
        if shows == "normals" and color_std > 0:
            raise ValueError(f"normals have no colors: with shows: normals, color_std must be 0, got {color_std}")
        self.pixel_std = pixel_std
        self.settings = Settings(color_std, janus, unconditional_views, tuple(background), shows)
        self._vocabulary = Vocabulary(tuple(SCENES))
        self._pictures = Pictures(supersample, cache_bytes)

    def vocabulary(self) -> Vocabulary:
        """The words of prompts."""
        return self._vocabulary

    def check(self, prompt: Prompt | None) -> None:
        """Check that the gallery supports a prompt.

        Args:
            prompt: one or several prompts, or None.

        Raises:
            ValueError: if a word is unknown. The message lists the vocabulary.
        """
        for text in [prompt] if prompt is None or isinstance(prompt, str) else prompt:
            self._vocabulary.parse(text)

    def variant_count(self, prompt: str | None) -> int:
        """K, the number of the prompt's variants; without a noun, that of all nouns."""
        phrase = self._vocabulary.parse(prompt)
        return len(models(phrase.noun, phrase.size))

    def weights(self, prompt: str | None) -> Tensor:
        """Probability of each variant, (K,) float64. Nouns are equally likely, and so are the variants of a noun."""
        return variant_weights(self._vocabulary.parse(prompt))

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Prediction:
        epsilon = self._posterior(x_t, t, condition).epsilon.reshape(x_t.shape)
        return Prediction(x_t, t, self.schedule, epsilon=epsilon)

    def log_prob(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Tensor:
        return self._posterior(x_t, t, condition).log_prob

    def responsibilities(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Tensor:
        """p(variant | x_t), (B, K), summed over cameras if the condition has none.

        Args:
            x_t: (B, 3, H, W).
            t: in [0, 1]: a number, or (B,).
            condition: prompts with the same number of variants each.

        Raises:
            ValueError: if the prompts' numbers of variants differ.
        """
        phrases = phrases_of(condition, len(x_t), self._vocabulary)
        counts = {len(models(phrase.noun, phrase.size)) for phrase in phrases}
        if len(counts) != 1:
            raise ValueError(f"the prompts have different numbers of variants, {sorted(counts)}")
        joint = self._posterior(x_t, t, condition).responsibilities
        return joint.reshape(len(x_t), -1, counts.pop()).sum(1)

    @torch.no_grad()
    def renders(
        self, prompt: str | None, camera: Camera, height: int, width: int, background: Tensor | None = None
    ) -> GalleryRender:
        """Render the prompt's variants.

        Args:
            prompt: the prompt. A view word turns cameras that contradict it.
            camera: V cameras. The result has their dtype and device.
            height, width: size of the pictures in pixels.
            background: (V, 3) in [-1, 1]; None: the gallery's background.
        """
        phrase = self._vocabulary.parse(prompt)
        light = self._pictures(phrase, obey(camera, phrase.view), height, width)
        if background is None:
            background = camera.pose.new_tensor(self.settings.background).expand(len(camera), 3)
        rgb = composite(light, phrase, background.to(camera.pose), self.settings.shows)
        return GalleryRender(rgb, light.opacity, light.depth, light.normals)

    @torch.no_grad()
    def distance(self, prompt: str, variant: int, points: Tensor) -> Tensor:
        """Signed distance bound of one variant's surface: 1-Lipschitz, zero on the surface, negative inside.

        Args:
            prompt: the prompt; its view word is ignored.
            variant: index of the variant.
            points: (N, 3) in world units.

        Returns:
            (N,) with the points' dtype.
        """
        scene = self._scene(prompt, variant, points)
        return torch.cat([bound for bound, _ in scene.distances(points, variant)])

    @torch.no_grad()
    def albedo(self, prompt: str, variant: int, points: Tensor) -> Tensor:
        """Color of the nearest material at points (N, 3), (N, 3) in [0, 1].

        Arguments are those of `distance`.
        """
        scene = self._scene(prompt, variant, points)
        nearest = torch.cat([part for _, part in scene.distances(points, variant)])
        return albedo(self._vocabulary.parse(prompt), points)[variant, scene.material[nearest]]

    def mesh(self, prompt: str, variant: int, resolution: int = 96) -> Mesh:
        """One variant's surface by marching cubes, watertight, with the materials' colors at the vertices.

        Args:
            prompt: the prompt; its view word is ignored.
            variant: index of the variant.
            resolution: samples along each side of the volume.
        """
        bound = RADIUS * (1 + 2 / resolution)
        axis = torch.linspace(-bound, bound, resolution, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis, axis)
        volume = self.distance(prompt, variant, points).reshape(resolution, resolution, resolution)
        mesh = marching_cubes(volume, 0.0, bound, "below")
        return Mesh(mesh.vertices, mesh.faces, self.albedo(prompt, variant, mesh.vertices))

    @torch.no_grad()
    def sample(
        self, n: int, condition: Condition | None, height: int, width: int, rng: torch.Generator | None = None
    ) -> Tensor:
        """Draw clean pictures from p(x | condition).

        Args:
            n: number of pictures; a condition's cameras, backgrounds and lists of prompts have n rows.
            condition: the condition; None: any noun from any canonical camera.
            height, width: size of the pictures in pixels.
            rng: CPU generator; None: torch's global one.

        Returns:
            (n, 3, height, width), in about [-1, 1], with the cameras' dtype and device, or float32 without cameras.
        """
        camera = None if condition is None else condition.camera
        like = torch.zeros(n, 3, height, width) if camera is None else camera.fov.new_zeros(n, 3, height, width)
        return draw(like, self._mixtures(like, condition), self.pixel_std, rng)

    @torch.no_grad()
    def _mixtures(self, like: Tensor, condition: Condition | None) -> list[tuple[Group, Mixture]]:
        groups = groups_of(condition, like, self._vocabulary, self.settings)
        # A list, because a suspended generator would disable gradients in its caller.
        return list(mixtures_of(groups, self._pictures, self.settings, like))

    def _posterior(self, x_t: Tensor, t: float | Tensor, condition: Condition | None) -> MixturePosterior:
        """The posterior of each row in the dtype of x_t, or in float32 for half precision."""
        if x_t.ndim != 4 or x_t.shape[1] != 3:
            raise ValueError(f"the gallery needs pictures (B, 3, H, W); got {tuple(x_t.shape)}")
        x = x_t.float() if x_t.dtype in (torch.float16, torch.bfloat16) else x_t
        t = times_of(t, x).to(x.device)
        if self.pixel_std == 0:
            what = "the score of a Gallery whose pixel_std is 0"
            require_noise(t, self.schedule, what, f"{MORE_NOISE}, or give it a pixel_std above 0")
        alpha, sigma = (each.to(x) for each in self.schedule(t))
        return posterior(x, alpha, sigma, self._mixtures(x, condition), self.pixel_std)

    def _scene(self, prompt: str, variant: int, points: Tensor) -> Table:
        phrase = self._vocabulary.parse(prompt)
        count = len(models(phrase.noun, phrase.size))
        if not 0 <= variant < count:
            raise ValueError(f"{prompt!r} has variants 0 to {count - 1}, not {variant}")
        return table(phrase.noun, phrase.size, points.dtype, points.device)
