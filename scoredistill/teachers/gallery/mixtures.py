"""From a condition to Gaussian mixtures, one for each group of equal rows of a batch; their posteriors and samples.

    mu_k = 2 (sum_g light_kg albedo_kg + (1 - opacity_k) (1 + b) / 2) - 1
    F_k = color_std d mu_k / d albedo = 2 color_std light_kg for material g, in each channel

Shaded color is linear in the albedo, so normally distributed albedos have exactly the covariance F_k^T F_k. For
pictures of normals, mu_k = n_k + (1 - opacity_k) b.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery.catalog import Pictures, albedo, fingerprints, models
from scoredistill.teachers.gallery.render import Light
from scoredistill.teachers.gallery.scenes import SCENES
from scoredistill.teachers.gallery.views import canonical, obey, opposite
from scoredistill.teachers.gallery.vocabulary import Phrase, Vocabulary
from scoredistill.types import Condition

Shown = Literal["colors", "normals"]


@dataclass(frozen=True)
class Settings:
    """The gallery's options that shape the mixtures; see `Gallery`."""

    color_std: float
    janus: float
    views: int
    background: tuple[float, ...]
    shows: Shown = "colors"


@dataclass(frozen=True)
class Group:
    """Rows of a batch with the same mixture.

    Args:
        rows: (b,) indices into the batch, on the CPU.
        phrase: their prompt.
        camera: their one camera, or None.
        background: (3,) in [-1, 1].
    """

    rows: Tensor
    phrase: Phrase
    camera: Camera | None
    background: Tensor

    def cameras(self, settings: Settings, like: Tensor) -> tuple[Camera, Tensor]:
        """The C cameras of the group's mixture, and their probabilities (C,)."""
        if self.camera is None:
            ring = canonical(settings.views, self.phrase.view)
            camera = Camera(ring.pose.to(like), ring.fov.to(like))
        else:
            camera = obey(self.camera, self.phrase.view)
        even = torch.full_like(camera.fov, 1 / len(camera))
        if settings.janus == 0:
            return camera, even
        return _joined([camera, opposite(camera)]), torch.cat([(1 - settings.janus) * even, settings.janus * even])


@dataclass(frozen=True)
class Mixture:
    """The clean mixture of one group. Its components are all pairs of a camera and a variant, in camera-major order.

    Args:
        means: (K, D).
        log_weights: (K,).
        factors: (K, R, D) with covariance F^T F in addition to the pixel noise, or None.
    """

    means: Tensor
    log_weights: Tensor
    factors: Tensor | None


def phrases_of(condition: Condition | None, batch: int, vocabulary: Vocabulary) -> list[Phrase]:
    """The parsed prompt of each row.

    Raises:
        ValueError: if a word is not in the vocabulary, the condition has a label, or the number of prompts is not B.
    """
    if condition is None:
        return [Phrase()] * batch
    if condition.label is not None:
        raise ValueError("the gallery has no class labels; use a noun in the prompt")
    if condition.prompt is None or isinstance(condition.prompt, str):
        return [vocabulary.parse(condition.prompt)] * batch
    if len(condition.prompt) != batch:
        raise ValueError(f"the condition has {len(condition.prompt)} prompts for a batch of {batch}")
    known = {prompt: vocabulary.parse(prompt) for prompt in set(condition.prompt)}
    return [known[prompt] for prompt in condition.prompt]


def groups_of(condition: Condition | None, like: Tensor, vocabulary: Vocabulary, settings: Settings) -> list[Group]:
    """Rows with the same phrase, camera and background, in order of appearance.

    Args:
        condition: B rows, or None.
        like: (B, ...); cameras and backgrounds are converted to its dtype and device.

    Raises:
        ValueError: if there is not one camera or one background per row.
    """
    batch = len(like)
    phrases = phrases_of(condition, batch, vocabulary)
    camera = None if condition is None or condition.camera is None else condition.camera
    background = None if condition is None else condition.background
    for name, value in (("cameras", camera), ("backgrounds", background)):
        if value is not None and len(value) != batch:
            raise ValueError(f"the condition has {len(value)} {name} for a batch of {batch}")
    if camera is not None:
        camera = Camera(camera.pose.to(like), camera.fov.to(like))
    if background is None:
        background = like.new_tensor(settings.background).expand(batch, 3)
    background = background.to(like)
    values = [background] if camera is None else [background, camera.pose, camera.fov]
    rows: dict[tuple[Phrase, bytes], list[int]] = {}
    for row, key in enumerate(zip(phrases, fingerprints(*values), strict=True)):
        rows.setdefault(key, []).append(row)
    return [
        Group(
            torch.tensor(index),
            phrase,
            None if camera is None else camera[torch.tensor(index[:1])],
            background[index[0]],
        )
        for (phrase, _), index in rows.items()
    ]


def mixtures_of(
    groups: list[Group], pictures: Pictures, settings: Settings, like: Tensor
) -> Iterator[tuple[Group, Mixture]]:
    """Each group's mixture. The cameras of all groups with the same scene are rendered in one call.

    Args:
        groups: groups of a batch's rows.
        pictures: the renderer.
        settings: the gallery's options.
        like: (B, 3, H, W) with the pictures' size, dtype and device.
    """
    scenes: dict[tuple[str | None, str | None], list[Group]] = {}
    for group in groups:
        scenes.setdefault((group.phrase.noun, group.phrase.size), []).append(group)
    for members in scenes.values():
        cameras, weights = zip(*(group.cameras(settings, like) for group in members), strict=True)
        light = pictures(members[0].phrase, _joined(list(cameras)), *like.shape[-2:])
        start = 0
        for group, weight in zip(members, weights, strict=True):
            part = light[slice(start, start + len(weight))]
            start += len(weight)
            yield group, _mixture(group, part, weight, settings)


def variant_weights(phrase: Phrase) -> Tensor:
    """Probability of each variant, (K,) float64: nouns are equally likely, and so are the variants of a noun."""
    nouns = tuple(SCENES) if phrase.noun is None else (phrase.noun,)
    counts = [len(models(noun, phrase.size)) for noun in nouns]
    return torch.cat([torch.full((n,), 1 / (n * len(nouns)), dtype=torch.float64) for n in counts])


def composite(light: Light, phrase: Phrase, background: Tensor, shows: Shown = "colors") -> Tensor:
    """Pictures in [-1, 1] over backgrounds (V, 3): (V, K, 3, H, W)."""
    background_color = background[:, None, :, None, None]
    if shows == "normals":
        return light.facing + (1 - light.opacity) * background_color
    color = torch.einsum("vkghw,kgc->vkchw", light.light, albedo(phrase, background))
    return 2 * color + (1 - light.opacity) * (background_color + 1) - 1


def _mixture(group: Group, light: Light, weight: Tensor, settings: Settings) -> Mixture:
    cameras, variants, materials, height, width = light.light.shape
    background = group.background.expand(cameras, 3)
    color_std = settings.color_std
    means = composite(light, group.phrase, background, settings.shows).reshape(cameras * variants, -1)
    variant = variant_weights(group.phrase).to(weight)
    log_weights = (weight[:, None] * variant).reshape(-1).log()
    if color_std == 0:
        return Mixture(means, log_weights, None)
    # One factor per material and channel: the material's light in that channel, 0 in the others.
    channels = torch.eye(3, dtype=means.dtype, device=means.device)
    factors = 2 * color_std * torch.einsum("vkghw,cd->vkgcdhw", light.light, channels)
    return Mixture(means, log_weights, factors.reshape(cameras * variants, materials * 3, 3 * height * width))


def _joined(cameras: list[Camera]) -> Camera:
    return Camera(torch.cat([camera.pose for camera in cameras]), torch.cat([camera.fov for camera in cameras]))


VALUES_AT_ONCE = 1 << 25
"""Maximum number of values (rows x components x dimensions) in one evaluation of a mixture, which bounds memory."""


def posterior(
    x: Tensor, alpha: Tensor, sigma: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float
) -> MixturePosterior:
    """Score, log-density and responsibilities of each row under its group's mixture.

    Args:
        x: (B, 3, H, W) diffused pictures.
        alpha, sigma: (B,).
        mixtures: groups that together contain all rows of the batch, and their mixtures.
        pixel_std: standard deviation of independent pixel noise.

    Returns:
        epsilon (B, 3 H W), log_prob (B,), and responsibilities (B, K), padded with 0 for smaller mixtures.
    """
    rows, results = [], []
    for group, mixture in mixtures:
        variance = mixture.means.new_full((len(mixture.means), 1), pixel_std**2)
        factors = mixture.factors
        covariance = Covariance(variance) if factors is None else Covariance.low_rank(variance, factors)
        for block in group.rows.split(max(1, VALUES_AT_ONCE // mixture.means.numel())):
            row = block.to(x.device)
            at = x[row].flatten(1), alpha[row], sigma[row]
            results.append(diffused_mixture(*at, mixture.means, mixture.log_weights, covariance))
            rows.append(block)
    order = torch.cat(rows).argsort().to(x.device)
    width = max(result.responsibilities.shape[1] for result in results)
    padded = [pad(result.responsibilities, (0, width - result.responsibilities.shape[1])) for result in results]
    return MixturePosterior(
        torch.cat([result.epsilon for result in results])[order],
        torch.cat([result.log_prob for result in results])[order],
        torch.cat(padded)[order],
    )


def draw(like: Tensor, mixtures: list[tuple[Group, Mixture]], pixel_std: float, rng: torch.Generator | None) -> Tensor:
    """Draw one clean picture per row.

    Args:
        like: (n, 3, H, W) with the result's shape, dtype and device.
        mixtures: groups that together contain all rows of the batch, and their mixtures.
        pixel_std: standard deviation of independent pixel noise.
        rng: CPU generator; None: torch's global one.
    """
    choice = torch.rand(len(like), dtype=torch.float64, generator=rng)
    noise = torch.randn(like.shape, dtype=torch.float64, generator=rng).to(like)
    rows, pictures = [], []
    for group, mixture in mixtures:
        cumulative = mixture.log_weights.double().exp().cumsum(0).cpu()
        drawn = torch.searchsorted(cumulative, choice[group.rows] * cumulative[-1], right=True)
        k = drawn.clamp(max=len(cumulative) - 1).to(like.device)
        picture = mixture.means[k]
        if mixture.factors is not None:
            z = torch.randn(len(k), mixture.factors.shape[1], dtype=torch.float64, generator=rng).to(like)
            picture = picture + torch.einsum("nr,nrd->nd", z, mixture.factors[k])
        rows.append(group.rows)
        pictures.append(picture)
    clean = torch.cat(pictures)[torch.cat(rows).argsort().to(like.device)]
    return clean.reshape(like.shape) + pixel_std * noise
