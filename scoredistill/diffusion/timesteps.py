"""Distributions of the noise time t, and bins of noise levels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scoredistill.annealing import Annealed, Knot, Piecewise, at_progress
from scoredistill.diffusion.schedule import Schedule, require_signal
from scoredistill.ranges import require


class TimestepSampler(ABC):
    """A distribution of t that may change with training progress."""

    @abstractmethod
    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        """Draw n times.

        Args:
            n: number of times.
            schedule: alpha and sigma, for samplers defined in terms of noise levels.
            progress: fraction of training done, in [0, 1].
            rng: CPU generator; None: torch's global one.

        Returns:
            (n,) in [0, 1], float64 on the CPU; the caller casts it to the samples' dtype and device.
        """


def _uniform(n: int, rng: torch.Generator | None) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=rng)


class UniformTimesteps(TimestepSampler):
    """t ~ U(low, high), where both ends may change with progress.

    Args:
        low: smallest t, a constant or a `Piecewise` over progress, in [0, 1].
        high: largest t, likewise, in [0, 1].

    Raises:
        ValueError: if an end lies outside its range, or low above high at any time.
    """

    def __init__(self, low: Annealed = 0.02, high: Annealed = 0.98) -> None:
        require("[0, 1]", low=low, high=high)
        self.low = low
        self.high = high
        knots = [knot.at for end in (low, high) if isinstance(end, Piecewise) for knot in end.knots]
        for progress in sorted({0.0, *knots}):
            self._ends(progress)

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        low, high = self._ends(progress)
        return low + (high - low) * _uniform(n, rng)

    def _ends(self, progress: float) -> tuple[float, float]:
        low, high = at_progress(self.low, progress), at_progress(self.high, progress)
        if low > high:
            raise ValueError(f"need low <= high, got low {low} and high {high} at progress {progress:.3f}")
        return low, high


class SquareRootTimesteps(UniformTimesteps):
    """t = high - (high - low) sqrt(progress), the same for all samples: HiFA's annealing.

    "HiFA: High-fidelity Text-to-3D Generation with Advanced Diffusion Guidance" (2023), arXiv:2305.18766.

    Args:
        low: t at the end, in [0, 1].
        high: t at the start, in [0, 1].

    Raises:
        ValueError: if an end lies outside its range, or low above high.
    """

    def __init__(self, low: float = 0.3, high: float = 0.98) -> None:
        require("[0, 1]", low=low, high=high)
        super().__init__(low, high)

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        low, high = self._ends(progress)
        return torch.full((n,), high - (high - low) * progress**0.5, dtype=torch.float64)


class TwoStageTimesteps(UniformTimesteps):
    """ProlificDreamer's annealing: t ~ U(low, high) at first, t ~ U(low, late_high) after `switch`.

    "ProlificDreamer" (2023), arXiv:2305.16213: .98, then .5 from step 5,000 of 25,000.

    Args:
        low: smallest t, in [0, 1].
        high: largest t of the first stage, in [0, 1].
        late_high: largest t of the second, in [0, 1].
        switch: fraction of training at which the second begins, in (0, 1].
    """

    def __init__(self, low: float = 0.02, high: float = 0.98, late_high: float = 0.5, switch: float = 0.2) -> None:
        require("[0, 1]", low=low, high=high, late_high=late_high)
        require("(0, 1]", switch=switch)
        super().__init__(low, Piecewise([Knot(0.0, high, "hold"), Knot(switch, late_high)]))


class LogNormalTimesteps(TimestepSampler):
    """log(sigma / alpha) ~ N(mean, std^2): the training noise of EDM, for any schedule.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.

    Args:
        mean: of log(sigma / alpha), finite.
        std: of log(sigma / alpha), > 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        require("finite", mean=mean)
        require("> 0", std=std)
        self.mean = mean
        self.std = std

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        normal = torch.randn(n, dtype=torch.float64, generator=rng)
        return schedule.t_at_log_snr(-2 * (self.mean + self.std * normal))


class ShiftedTimesteps(TimestepSampler):
    """t = shift u / (1 + (shift - 1) u),    u ~ U(low, high): the resolution-dependent shift of flow models.

    "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024), arXiv:2403.03206, section 5.3.2.

    Args:
        shift: > 0; 1 is uniform, above 1 there is more noise.
        low: smallest u, in [0, 1].
        high: largest u, in [0, 1].

    Raises:
        ValueError: if an end lies outside its range, or low above high.
    """

    def __init__(self, shift: float = 3.0, low: float = 0.02, high: float = 0.98) -> None:
        require("> 0", shift=shift)
        require("[0, 1]", low=low, high=high)
        if low > high:
            raise ValueError(f"need low <= high, got low {low} and high {high}")
        self.shift = shift
        self.low = low
        self.high = high

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        u = self.low + (self.high - self.low) * _uniform(n, rng)
        return self.shift * u / (1 + (self.shift - 1) * u)


class LogitNormalTimesteps(TimestepSampler):
    """log(t / (1 - t)) ~ N(mean, std^2): more weight on intermediate times of flow models.

    "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024), arXiv:2403.03206, section 3.1.

    Args:
        mean: of the logit of t, finite; above 0 there is more noise.
        std: of the logit of t, > 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        require("finite", mean=mean)
        require("> 0", std=std)
        self.mean = mean
        self.std = std

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.randn(n, dtype=torch.float64, generator=rng))


class StudentTTimesteps(TimestepSampler):
    """(log(sigma / alpha) - mean) / scale follows Student's t distribution: `LogNormalTimesteps` with heavier tails.

    Args:
        mean: location of log(sigma / alpha), finite.
        scale: of log(sigma / alpha), > 0.
        degrees: of freedom, > 0.
    """

    def __init__(self, mean: float = -1.2, scale: float = 1.2, degrees: float = 3.0) -> None:
        require("finite", mean=mean)
        require("> 0", scale=scale)
        require("> 0", degrees=degrees)
        self.mean = mean
        self.scale = scale
        self.degrees = degrees

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        from scipy.stats import t as students

        # By the inverse of the distribution function, because torch has no chi-square with a generator.
        u = _uniform(n, rng).clamp(1e-12, 1 - 1e-12).numpy()
        value = torch.as_tensor(students.ppf(u, self.degrees))
        return schedule.t_at_log_snr(-2 * (self.mean + self.scale * value))


class PolynomialTimesteps(TimestepSampler):
    """sigma / alpha = (a + u (b - a))^rho,    a = low^(1 / rho), b = high^(1 / rho), u ~ U(0, 1)

    for any schedule: uniform times of EDM's grid.

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364, equation 5.

    Args:
        low: smallest sigma / alpha, > 0.
        high: largest sigma / alpha, > 0.
        rho: curvature, > 0.

    Raises:
        ValueError: if a number is out of its range, or low above high.
    """

    def __init__(self, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> None:
        require("> 0", low=low, high=high, rho=rho)
        if low > high:
            raise ValueError(f"need low <= high, got low {low} and high {high}")
        self.low = low
        self.high = high
        self.rho = rho

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        a, b = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        level = (a + (b - a) * _uniform(n, rng)) ** self.rho
        return schedule.t_at_log_snr(-2 * level.log())


class NoiseLevelTimesteps(TimestepSampler):
    """sigma / alpha log-uniform in [r / spread, r * spread]; the noise-to-signal ratio r may change with progress.

    Annealing in log-SNR decides whether VSD differs from SDS: particles repel each other only while sigma / alpha is of
    the order of the distance between modes, which for pictures is far beyond the usual range of t.

    Args:
        noise_to_signal: r = sigma / alpha, > 0; a constant or a `Piecewise` (geometric segments are natural).
        spread: factor >= 1 by which it varies within a step; 1: all samples share one noise level.
    """

    def __init__(self, noise_to_signal: Annealed, spread: float = 1.0) -> None:
        require("> 0", noise_to_signal=noise_to_signal)
        require(">= 1", spread=spread)
        self.noise_to_signal = noise_to_signal
        self.spread = spread

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        log_ratio = math.log(at_progress(self.noise_to_signal, progress))
        jitter = (2 * _uniform(n, rng) - 1) * math.log(self.spread)
        return schedule.t_at_log_snr(-2 * (log_ratio + jitter))


class DreamTimeTimesteps(TimestepSampler):
    """One t per step, decreasing monotonically: t(progress) solves int_t^1 W = progress, with

        W(t) ∝ sqrt((1 - abar_t) / abar_t) exp(-(t - mean)^2 / (2 std^2)),    abar = alpha^2 / (alpha^2 + sigma^2)

    so that training spends most steps where W is large.

    "DreamTime: An Improved Optimization Strategy for Diffusion-Guided 3D Generation" (2023), arXiv:2306.12422.

    Args:
        mean: center of the prior, in (0, 1).
        std: width of the prior, > 0.
        low, high: ends of the range of t, in [0, 1], low < high; high < 1 if the schedule ends without signal, where W
            is not integrable.

    Raises:
        ValueError: if a number is out of its range; when drawing t, if W is not integrable.
    """

    def __init__(self, mean: float = 0.5, std: float = 0.125, low: float = 0.02, high: float = 0.98) -> None:
        require("(0, 1)", mean=mean)
        require("> 0", std=std)
        require("[0, 1]", low=low, high=high)
        if low >= high:
            raise ValueError(f"need low < high, got low {low} and high {high}")
        self.mean = mean
        self.std = std
        self.low = low
        self.high = high

    def __call__(self, n: int, schedule: Schedule, progress: float = 0.0, rng: torch.Generator | None = None) -> Tensor:
        t = torch.linspace(self.high, self.low, 1001, dtype=torch.float64)
        require_signal(t[:1], schedule, "the integral of DreamTime's weight", "choose high below 1")
        weight = torch.exp(-0.5 * schedule.log_snr(t) - 0.5 * ((t - self.mean) / self.std) ** 2)
        mass = torch.cat([weight.new_zeros(1), torch.cumulative_trapezoid(weight, dim=0)])
        target = torch.tensor([min(max(progress, 0.0), 1.0)], dtype=torch.float64) * mass[-1]
        right = torch.searchsorted(mass, target).clamp(1, len(t) - 1)
        between = (target - mass[right - 1]) / (mass[right] - mass[right - 1])
        return torch.lerp(t[right - 1], t[right], between).expand(n)


DRAWS, STAGES = 1024, 17


class TimeBins:
    """Bins in log(alpha^2 / sigma^2); the first is the noisiest.

    Args:
        edges: the rising log-SNR between the bins, one fewer than bins.
    """

    def __init__(self, edges: Tensor | Sequence[float]) -> None:
        self.edges = torch.as_tensor(edges, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.edges) + 1

    @classmethod
    def quantiles(cls, timesteps: TimestepSampler, schedule: Schedule, bins: int) -> TimeBins:
        """Bins that the times of a complete training fall into equally often.

        Args:
            timesteps: the distribution of t; all of its annealing is covered.
            schedule: alpha and sigma.
            bins: number of bins, >= 1.
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
        """The mean of (B,) values in each nonempty bin."""
        index = self(t, schedule)
        return {k: values[index == k].mean() for k in index.unique().tolist()}
