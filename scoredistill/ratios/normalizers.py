"""Normalizers of the density ratio and of its weight. Each one changes the objective (law 9)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoredistill.diffusion.schedule import Schedule
from scoredistill.diffusion.timesteps import TimeBins, TimestepSampler
from scoredistill.networks.modules import Precise
from scoredistill.ranges import require
from scoredistill.types import Diffused


class RatioNormalizer(Precise, ABC):
    """Rescales log r before h is taken. A subclass implements `forward`; one with statistics overrides `observe`."""

    @abstractmethod
    def forward(self, log_r: Tensor, diffused: Diffused) -> Tensor:
        """The normalized log r, (B,), a pure function of the arguments and the current statistics."""

    def bind(self, timesteps: TimestepSampler, schedule: Schedule) -> None:
        """Take the distribution of times. The loss calls it once; the default does nothing."""
        del timesteps, schedule

    def observe(self, log_r: Tensor, diffused: Diffused) -> None:
        """Update statistics with the raw log r of a generator step. Called in training, after the step's gradient."""


class ClampRatio(RatioNormalizer):
    """r clamped to [low, high], which bounds the variance of h.

    Args:
        low: smallest r, > 0.
        high: largest r, > 0.
    """

    def __init__(self, low: float = 0.1, high: float = 20.0) -> None:
        require("> 0", low=low, high=high)
        super().__init__()
        if low >= high:
            raise ValueError(f"need low < high, got {low} and {high}")
        self.low = low
        self.high = high

    def forward(self, log_r: Tensor, diffused: Diffused) -> Tensor:
        return log_r.clamp(math.log(self.low), math.log(self.high))


class TimeBinNormalizer(RatioNormalizer):
    """Divides r by a running mean over its time bin, so that E_q[r] = 1 in each bin even for a biased estimate.

    Bins are quantiles of log(alpha^2 / sigma^2), so that they fill equally fast. The mean is an exponential moving
    average of each bin's batch mean with a warm start: the n-th observation has weight max(1/n, 1 - decay). An empty
    bin leaves r unchanged.

    Args:
        bins: number of bins, >= 1.
        decay: of the moving average, in [0, 1).
        edges: increasing log-SNR between the bins, finite; None: quantiles of the distiller's timesteps.

    Raises:
        ValueError: if there are not `bins` - 1 edges.
    """

    log_mean: Tensor
    count: Tensor

    def __init__(self, bins: int = 10, decay: float = 0.99, edges: Sequence[float] | None = None) -> None:
        require(">= 1", bins=bins)
        require("[0, 1)", decay=decay)
        require("finite", edges=edges)
        super().__init__()
        if edges is not None and len(edges) != bins - 1:
            raise ValueError(f"{bins} bins have {bins - 1} edges between them, got {len(edges)}")
        self.bins = bins
        self.decay = decay
        self.edges = TimeBins(edges or []) if edges is not None or bins == 1 else None
        self.register_buffer("log_mean", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(bins, dtype=torch.long))

    def bind(self, timesteps: TimestepSampler, schedule: Schedule) -> None:
        self.edges = self.edges or TimeBins.quantiles(timesteps, schedule, self.bins)

    def bin_of(self, diffused: Diffused) -> Tensor:
        """(B,) index of each sample's bin.

        Raises:
            ValueError: if neither the constructor nor a `Distiller` has set the edges.
        """
        if self.edges is None:
            raise ValueError("TimeBinNormalizer has no edges yet: pass edges=, or put it into a Distiller")
        return self.edges(diffused.t, diffused.schedule)

    def forward(self, log_r: Tensor, diffused: Diffused) -> Tensor:
        return log_r - self.log_mean[self.bin_of(diffused)].to(log_r)

    def observe(self, log_r: Tensor, diffused: Diffused) -> None:
        bins = self.bin_of(diffused)
        log_r = log_r.detach().double()
        # Sums of r relative to the largest of each bin, which stay finite, over the complete batch.
        peak = torch.full_like(self.log_mean, -torch.inf).scatter_reduce(0, bins, log_r, "amax")
        peak = diffused.shard.max(peak)
        mass = torch.zeros_like(self.log_mean).index_add_(0, bins, (log_r - peak[bins]).exp())
        seen_by = torch.bincount(bins, minlength=self.bins).double()
        mass, seen_by = diffused.shard.sum(torch.stack([mass, seen_by]))
        seen = seen_by > 0
        self.count += seen
        fresh = (1 / self.count.double()).clamp(min=1 - self.decay, max=1)
        batch_mean = peak + (mass / seen_by).log()
        # The average of r in logarithms; the first observation has weight 1, where log1p(-1) = -inf is correct.
        average = torch.logaddexp(self.log_mean + torch.log1p(-fresh), batch_mean + fresh.log())
        self.log_mean.copy_(torch.where(seen, average, self.log_mean))


class WeightNormalizer(nn.Module, ABC):
    """Rescales h over a batch. A subclass implements `forward`."""

    @abstractmethod
    def forward(self, h: Tensor, diffused: Diffused) -> Tensor:
        """The normalized h, (B,) -> (B,)."""


class BatchMeanNormalizer(WeightNormalizer):
    """h / mean(h), with the mean over the complete batch of all processes.

    For the alpha family this gives the gradient of the Rényi divergence, up to the factor alpha. With a batch of one,
    h = 1, which is reverse KL.
    """

    def forward(self, h: Tensor, diffused: Diffused) -> Tensor:
        total, count = diffused.shard.sum(torch.stack([h.sum(), h.new_tensor(float(len(h)))]))
        return h / (total / count).clamp(min=torch.finfo(h.dtype).tiny)
