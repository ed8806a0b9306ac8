"""Bins of noise levels that are asked for equally often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scoredistill.diffusion.schedule import Schedule
from scoredistill.diffusion.timesteps import TimestepSampler

DRAWS, STAGES = 1024, 17


class TimeBins:
    """Bins in log(alpha^2 / sigma^2), the first being the noisiest.

    Args:
        edges: the rising log-SNR between the bins, one fewer than bins.
    """

    def __init__(self, edges: Tensor | Sequence[float]) -> None:
        self.edges = torch.as_tensor(edges, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.edges) + 1

    @classmethod
    def quantiles(cls, timesteps: TimestepSampler, schedule: Schedule, bins: int) -> TimeBins:
        """Bins that the times of a whole training fall into equally often.

        Args:
            timesteps: the distribution of t, over all of its annealing.
            schedule: alpha and sigma.
            bins: how many, >= 1.
        """
        rng = torch.Generator().manual_seed(0)
        stages = torch.linspace(0, 1, STAGES).tolist()
        t = torch.cat([timesteps(DRAWS, schedule, progress, rng) for progress in stages])
        levels = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
        return cls(torch.quantile(schedule.log_snr(t.double()), levels))

    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        """(B,) index of each time's bin."""
        return torch.bucketize(schedule.log_snr(t.double()), self.edges.to(t.device))

    def means(self, values: Tensor, t: Tensor, schedule: Schedule) -> dict[int, Tensor]:
        """The mean of (B,) values in each bin that has any."""
        index = self(t, schedule)
        return {k: values[index == k].mean() for k in index.unique().tolist()}
