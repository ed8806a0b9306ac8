"""Delta denoising score: the difference between two prompts, at a sample and at its reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scoredistill.data.pictures import read_picture
from scoredistill.diffusion.guidance import Guidance
from scoredistill.diffusion.time_weights import TimeWeight
from scoredistill.losses.distillation import GradientNormalizer, ScoreDistillation
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, Diffused, Sample


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
            raise ValueError("DDS: model.loss.init_args: set prompt or label to what the reference shows")
        self.prompt = prompt
        self.label = label
        known = read_picture(Path(reference))[None] if isinstance(reference, str) else reference
        self.register_buffer("reference", known.to(torch.get_default_dtype()), persistent=False)

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        """The guided teacher's epsilon at the reference, diffused as the samples were.

        Raises:
            ValueError: if the condition has neither prompt nor label, or a sample has no reference.
        """
        if diffused.condition is None or not diffused.condition.has_prompt_or_label:
            raise ValueError("DDS needs what the edit should show: set data.init_args.prompt or labels")
        r = Sample(
            self._reference_rows(diffused, teacher),
            self._reference_condition(diffused.condition, teacher, len(diffused.t)),
        )
        shown = Diffused.diffuse(r, diffused.t, diffused.epsilon, diffused.schedule)
        return guidance(teacher, shown.x_t, shown.t, shown.condition).epsilon

    def _reference_rows(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        """The reference of each sample, (B, *D), encoded by the same arithmetic as the samples."""
        x = diffused.x_t
        particle = diffused.sample.particle
        r = teacher.encode(self.reference.to(x.device)).to(x)
        if r.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"DDS: model.loss.init_args.reference is {tuple(r.shape[1:])} in the teacher's space, a sample "
                f"{tuple(x.shape[1:])}: give a reference of the samples' size"
            )
        if len(r) == 1:
            return r.expand_as(x)
        if particle is not None and int(particle.max()) < len(r):
            return r[particle]
        if particle is None and len(r) == len(x):
            return r
        raise ValueError(f"DDS: there are {len(r)} references: give one, or one per particle")

    def _reference_condition(self, condition: Condition, teacher: Teacher, rows: int) -> Condition | None:
        """The samples' condition with y_r in place of y."""
        label = None if self.label is None else torch.full((rows,), self.label, device=self.reference.device)
        return teacher.encode_prompt(replace(condition.with_prompt(self.prompt), label=label), rows)
