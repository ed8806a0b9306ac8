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
    """x from the probability flow of a teacher: what a student is to be held against. It has no gradient.

    Latents are decoded.

    Args:
        teacher: the model of p.
        shape: *D, the shape of one sample, >= 1.
        steps: noise levels of Heun's method, >= 1.
        guidance: how the teacher is asked; null: the conditional model itself.
        churn: noise added in every step; null: deterministic.
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
        self.teacher, self.shape, self.steps, self.guidance, self.churn = teacher, tuple(shape), steps, guidance, churn

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        settings = {"steps": self.steps, "guidance": self.guidance, "churn": self.churn}
        x = sample(self.teacher, batch.rows, self.shape, batch.condition, rng=rng, **settings)  # type: ignore[arg-type]
        with torch.no_grad():
            return Sample(self.teacher.decode(x), batch.condition)
