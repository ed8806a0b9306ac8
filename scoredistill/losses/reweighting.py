"""h(r) of a divergence from an estimated density ratio, for the one gradient and for scalars alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from scoredistill.critics.critic import Critic
from scoredistill.diffusion.timesteps import TimestepSampler
from scoredistill.divergences import Divergence
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.ratios.normalizers import RatioNormalizer
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class RatioWeighted(Objective):
    """An objective with a critic whose weights depend on r = p_t / q_t. Its constructor calls `take_ratio`."""

    critic: Critic
    divergence: Divergence
    ratio: DensityRatio | None
    ratio_normalizers: Sequence[RatioNormalizer]

    def take_ratio(
        self, divergence: Divergence, ratio: DensityRatio | None, ratio_normalizers: Sequence[RatioNormalizer]
    ) -> None:
        """Set the divergence, the ratio and its normalizers.

        Raises:
            ValueError: if the divergence requires a ratio and none is given.
        """
        if ratio is None and not divergence.constant:
            raise ValueError(
                f"{type(self).__name__} with {type(divergence).__name__} needs a density ratio: set ratio, to "
                "ExactRatio for example, or use ReverseKL, whose h is constant"
            )
        self.divergence = divergence
        self.ratio = ratio
        self.ratio_normalizers = nn.ModuleList(ratio_normalizers)  # type: ignore[assignment]

    def bind(self, teacher: Teacher, timesteps: TimestepSampler) -> None:
        super().bind(teacher, timesteps)
        if self.ratio is not None:
            self.ratio.bind(teacher, self.critic)
        for normalizer in self.ratio_normalizers:
            normalizer.bind(timesteps, teacher.schedule)

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        """h(r) and log r, (B,) each; 1 without a ratio."""
        if self.ratio is None:
            return Reweighting(torch.ones_like(diffused.t))
        log_r = log_r_used = self.ratio(diffused, teacher, self.critic)
        for normalizer in self.ratio_normalizers:
            log_r_used = normalizer(log_r_used, diffused)
        return Reweighting(self.divergence.h_from_log(log_r_used), log_r, log_r_used)

    def observe(self, diffused: Diffused, gradient: Gradient) -> None:
        log_r = gradient.reweighting.log_r
        if log_r is None:
            return
        for normalizer in self.ratio_normalizers:
            normalizer.observe(log_r, diffused)
            log_r = normalizer(log_r, diffused)
