"""A teacher's own samples, as a generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scoredistill.diffusion.guidance import Guidance
from scoredistill.generators.generator import Generator
from scoredistill.ranges import require
from scoredistill.teachers.sampling import Churn, sample
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Batch, Sample


class SampledTeacher(Generator):
    """x from the probability flow of a teacher, the reference for a one-step student. It has no gradient.

    Latents are decoded to pictures.

    Args:
        teacher: the model of p.
        shape: *D, the shape of one sample, >= 1.
        steps: noise levels of Heun's method, >= 1.
        guidance: guidance of the teacher; None: the conditional model without guidance.
        churn: noise added in every step; None: deterministic.
    """

    def __init__(
        self,
        teacher: Teacher,
        shape: Sequence[int],
        steps: int = 18,
        guidance: Guidance | None = None,
        churn: Churn | None = None,
    ) -> None:
        require(">= 1", shape=shape, steps=steps)
        super().__init__()
        self.teacher = teacher
        self.shape = tuple(shape)
        self.steps = steps
        self.guidance = guidance
        self.churn = churn

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        settings = {"steps": self.steps, "guidance": self.guidance, "churn": self.churn}
        x = sample(self.teacher, batch.rows, self.shape, batch.condition, rng=rng, **settings)  # type: ignore[arg-type]
        with torch.no_grad():
            return Sample(self.teacher.decode(x), batch.condition)
