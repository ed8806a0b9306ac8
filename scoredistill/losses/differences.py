"""Differences of two predictions of the teacher: between conditions, or between a sample and a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scoredistill.cache import LastCallCache
from scoredistill.data.picture_files import read_picture
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.schedule import MORE_SIGNAL, Schedule, require_signal
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.losses.distillation import GradientNormalizer, ScoreDistillation
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, Sample, right_pad_dims

POOR = "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
"""The negative prompt of NFSD."""

SOURCE = (
    ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed",
    ", detailed high resolution, high quality, sharp",
)
"""Words that SDS-Bridge adds to the prompt, for the source and for the target."""


class CSD(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(x_t))

    It descends -log p_t(y | x_t), the teacher's own classifier. SDS under `CFG` of scale s is SDS + (s - 1) CSD, and
    CSD under that guidance is s times CSD. A negative prompt takes the unconditional model's place.

    "Text-to-3D with Classifier Score Distillation" (2023), arXiv:2310.19415.

    Args:
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def conditions(self, diffused: Diffused) -> Sequence[Condition | None]:
        """The unconditional branch.

        Raises:
            ValueError: if the condition has neither prompt nor label.
        """
        return [_prompted(diffused.condition, "CSD compares a prompt or class with the unconditional model").negative()]

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.predictions[0].epsilon


class NFSD(ScoreDistillation):
    """g = w(t) (delta_D + s (epsilon_teacher(x_t; y) - epsilon_teacher(x_t)))

        delta_D = epsilon_teacher(x_t)                                  for t < threshold
        delta_D = epsilon_teacher(x_t) - epsilon_teacher(x_t; poor)     otherwise

    with s the scale of `CFG`. This is the guided teacher with B = 0 for small t, where the teacher's prediction for a
    picture free of noise is its own domain correction, and B its prediction under a prompt for poor pictures above.

    "Noise-Free Score Distillation" (2023), arXiv:2310.17590.

    Args:
        negative: the prompt for poor pictures. Teachers without text take the unconditional model instead.
        threshold: time below which B = 0, in [0, 1].
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        negative: str = POOR,
        threshold: float = 0.2,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("[0, 1]", threshold=threshold)
        super().__init__(weight, normalizer)
        self.negative, self.threshold = negative, threshold

    def conditions(self, diffused: Diffused) -> Sequence[Condition | None]:
        """The samples' condition with the negative prompt and without their label; None without a condition."""
        condition = diffused.condition
        if condition is None or condition.prompt is None:
            return [None if condition is None else condition.negative()]
        return [replace(condition, negative_prompt=self.negative).negative()]

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        poor = diffused.predictions[0].epsilon
        return torch.where(right_pad_dims(diffused.t < self.threshold, poor), 0.0, poor)


class Bridge(ScoreDistillation):
    """g = w(t) s (epsilon_teacher(x_t; y_target) - epsilon_teacher(x_t; y_source)),    SDS before `switch`

    with s the scale of `CFG`. The source describes what a picture optimized by SDS looks like, so that the difference
    points from such pictures to good ones. Without a source it is s times `CSD`. The published scales are 100 before
    and 30 after the switch.

    "Rethinking Score Distillation as a Bridge Between Image Distributions" (2024), arXiv:2406.09417.

    Args:
        source: words added to the prompt for y_source; None: the unconditional model.
        target: words added to the prompt for y_target.
        switch: fraction of training after which the bridge takes over, in [0, 1].
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        source: str | None = SOURCE[0],
        target: str = SOURCE[1],
        switch: float = 0.8,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("[0, 1]", switch=switch)
        super().__init__(weight, normalizer)
        self.source = source
        self.target = target
        self.switch = switch

    def prepare(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Diffused:
        """The same x_t, under the target's prompt with the source's in place of the negative prompt."""
        if diffused.progress < self.switch:
            return diffused
        condition = _prompted(diffused.condition, "Bridge compares two prompts")
        bridged = replace(condition.with_prompt(_extended(condition.prompt, self.target)), negative_prompt=None)
        if self.source is not None:
            bridged = replace(bridged, negative_prompt=_extended(condition.prompt, self.source))
        return diffused.under(teacher.encode_prompt(bridged, len(diffused.t)))

    def conditions(self, diffused: Diffused) -> Sequence[Condition | None]:
        if diffused.progress < self.switch or diffused.condition is None:
            return ()
        return [diffused.condition.negative()]

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        return diffused.predictions[0].epsilon if diffused.predictions else diffused.epsilon


class DDS(ScoreDistillation):
    """g = w(t) (epsilon_teacher(x_t; y) - epsilon_teacher(r_t; y_r)),    r_t = alpha_t r + sigma_t epsilon

    with the same t, epsilon and guidance in both, and r a reference that shows y_r. The noise and the teacher's errors
    that both terms share cancel, so that x moves away from r only where y and y_r differ.

    "Delta Denoising Score" (2023), arXiv:2304.07090.

    Args:
        reference: r: (n, *D), one per particle or one for all, or the path of a picture. Pictures are encoded as the
            samples are if the teacher works on latents.
        prompt: y_r as a text.
        label: y_r as a class, >= 0.
        weight: w(t); None: `SigmaSquaredWeight`.
        normalizer: rescales each sample's gradient; None: no rescaling.

    Raises:
        ValueError: if neither prompt nor label is given, or the picture cannot be read.
    """

    reference: Tensor

    def __init__(
        self,
        reference: Tensor | str,
        prompt: str | None = None,
        label: int | None = None,
        weight: TimeWeight | None = None,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require(">= 0", label=label)
        super().__init__(weight, normalizer)
        if prompt is None and label is None:
            raise ValueError(
                f"{type(self).__name__}: model.loss.init_args: set prompt or label to what the reference shows"
            )
        self.prompt, self.label = prompt, label
        self._encoded = LastCallCache[Tensor]()
        known = read_picture(Path(reference))[None] if isinstance(reference, str) else reference
        self.register_buffer("reference", known.to(torch.get_default_dtype()), persistent=False)

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        """The guided teacher's epsilon at the reference, diffused as the samples were.

        Raises:
            ValueError: if the condition has neither prompt nor label, or a sample has no reference.
        """
        condition = _prompted(diffused.condition, f"{type(self).__name__} needs what the edit should show")
        r = Sample(self.reference_of(diffused, teacher), self._source(condition, teacher, len(diffused.t)))
        r_t = Diffused.diffuse(r, diffused.t, diffused.epsilon, diffused.schedule)
        return guidance(teacher, r_t.x_t, r_t.t, r_t.condition).epsilon

    def reference_of(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """r of each sample, (B, *D), encoded by the same arithmetic as the samples.

        Raises:
            ValueError: if a sample has no reference, or one of another size.
        """
        x = diffused.x_t
        particle = diffused.sample.particle
        own = type(self).__name__
        r = self._encoded.of(x.dtype, [self.reference, teacher], lambda: teacher.encode(self.reference).to(x))
        if r.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"{own}: model.loss.init_args.reference is {tuple(r.shape[1:])} in the teacher's space, a sample "
                f"{tuple(x.shape[1:])}: give a reference of the samples' size"
            )
        if len(r) == 1:
            return r.expand_as(x)
        if particle is not None and int(particle.max()) < len(r):
            return r[particle]
        if particle is None and len(r) == len(x):
            return r
        raise ValueError(f"{own}: there are {len(r)} references: give one, or one per particle")

    def _source(self, condition: Condition, teacher: Teacher, rows: int) -> Condition | None:
        """The samples' condition with y_r in place of y."""
        label = None if self.label is None else torch.full((rows,), self.label, device=self.reference.device)
        return teacher.encode_prompt(replace(condition.with_prompt(self.prompt), label=label), rows)


class PDS(DDS):
    """g = z(x) - z(r),    z(x) = (x_s - mu(x_t; y)) / std,    s = t - interval

    the difference of the latents that lead DDPM's posterior from x_t to x_s. The noises of x_s and r_s are the same and
    cancel, which leaves

        g = psi(t) (x - r) + chi(t) (epsilon_teacher(x_t; y) - epsilon_teacher(r_t; y_r))

    The published code takes the posterior over one step of 1/1000 with s two steps below t; hence psi > 0, which keeps
    x near r. With `step` equal to `interval` the posterior is exact, psi is 0, and PDS is DDS with the weight chi.

    "Posterior Distillation Sampling" (2023), arXiv:2311.13831.

    Args:
        reference: r; see `DDS`.
        prompt: y_r as a text.
        label: y_r as a class, >= 0.
        interval: t - s, in (0, 1].
        step: step of the posterior's variance, in (0, 1].
        normalizer: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self,
        reference: Tensor | str,
        prompt: str | None = None,
        label: int | None = None,
        interval: float = 0.002,
        step: float = 0.001,
        normalizer: GradientNormalizer | None = None,
    ) -> None:
        require("(0, 1]", interval=interval, step=step)
        super().__init__(reference, prompt, label, PosteriorWeight(interval, step), normalizer)
        self.interval, self.step = interval, step

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        """epsilon_teacher(r_t; y_r) - psi / chi (x - r)."""
        psi, chi = posterior_coefficients(diffused.t, diffused.schedule, self.interval, self.step)
        moved = diffused.sample.x.detach() - self.reference_of(diffused, teacher)
        return super().baseline(diffused, teacher, guidance) - right_pad_dims(psi / chi, moved) * moved


class PosteriorWeight(TimeWeight):
    """w = chi(t), the weight of the teacher's predictions in `PDS`. It is undefined for t <= interval.

    Args:
        interval: t - s, in (0, 1].
        step: step of the posterior's variance, in (0, 1].
    """

    def __init__(self, interval: float = 0.002, step: float = 0.001) -> None:
        require("(0, 1]", interval=interval, step=step)
        self.interval, self.step = interval, step

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return posterior_coefficients(t, schedule, self.interval, self.step)[1]


def posterior_coefficients(t: Tensor, schedule: Schedule, interval: float, step: float) -> tuple[Tensor, Tensor]:
    """psi and chi of `PDS`, (B,) each, from the posterior's mean c_0 x0 + c_1 x_t:

        c_0 = alpha_s beta / sigma_t^2,    c_1 = a sigma_s^2 / sigma_t^2,    std^2 = beta sigma_s^2 / sigma_t^2
        psi = (alpha_s - c_0 - c_1 alpha_t) / std,    chi = c_0 sigma_t / (alpha_t std)

    with a = alpha_t / alpha_u and beta = sigma_t^2 - a^2 sigma_u^2 the transition from u = t - step to t.

    Raises:
        ValueError: if a time is at most interval or step, or the signal vanishes at t.
    """
    first = max(interval, step)
    if t.device.type == "cpu" and bool((t <= first).any()):
        at = float(t.min())
        raise ValueError(
            f"the posterior of PDS has no value at t = {at:g}, up to {first:g}: draw t above it (low of the timesteps)"
        )
    require_signal(t, schedule, "the posterior of PDS", MORE_SIGNAL)
    exact = t.double()  # psi is a difference of nearly equal numbers
    s, u = ((exact - each).clamp(min=0) for each in (interval, step))
    (alpha_t, sigma_t), (alpha_s, sigma_s), (alpha_u, sigma_u) = (schedule(each) for each in (exact, s, u))
    a = alpha_t / alpha_u
    beta = sigma_t**2 - (a * sigma_u) ** 2
    c_0, c_1 = alpha_s * beta / sigma_t**2, a * (sigma_s / sigma_t) ** 2
    std = beta.sqrt() * sigma_s / sigma_t
    psi, chi = (alpha_s - c_0 - c_1 * alpha_t) / std, c_0 * sigma_t / (alpha_t * std)
    return psi.to(t), chi.to(t)


def _prompted(condition: Condition | None, need: str) -> Condition:
    """The condition.

    Raises:
        ValueError: if it has neither prompt nor label.
    """
    if condition is None or not condition.has_prompt_or_label:
        raise ValueError(f"{need}: set data.init_args.prompt or labels")
    return condition


def _extended(prompt: str | Sequence[str] | None, words: str) -> str | Sequence[str] | None:
    """The prompt with words added; None stays None."""
    if prompt is None or isinstance(prompt, str):
        return None if prompt is None else prompt + words
    return tuple(each + words for each in prompt)
