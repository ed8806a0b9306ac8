"""Teachers in closed form: Gaussian mixtures, and the empirical distribution of a data set."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.diffusion.prediction import Prediction, noise_like
from scoredistill.diffusion.schedule import MORE_NOISE, CosineSchedule, Schedule, require_noise
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition
from scoredistill.types.checks import times_of

CHUNK_ELEMENTS = 2**25
"""Maximum number of values in one evaluation: B x K x D, or B x K for a shared isotropic covariance."""


class GaussianMixture(Teacher):
    """A Gaussian mixture over samples of any shape, with its exact score at every noise level:

        p = sum_k pi_k N(mu_k, Sigma_k),    Sigma_k = diag(stds_k^2) + F_k^T F_k, or a full matrix

    With class labels, Condition(label=...) selects the components of that class. Without a condition, all components
    are used.

    Args:
        means: (K, *D).
        stds: standard deviations: scalar, (K,) isotropic, or (K, *D) diagonal; >= 0.
        weights: (K,) > 0, normalized here; None: equal.
        labels: (K,) integer class of each component; None: no classes.
        schedule: noise schedule; None: `CosineSchedule`.
        factors: (K, R, *D) low-rank factors F_k, in addition to isotropic stds.
        covariances: (K, D, D) full covariances in place of stds, where D is the number of dimensions of a sample.

    Raises:
        ValueError: if shapes do not match, a weight is not positive or a standard deviation is negative.
    """

    means: Tensor
    log_weights: Tensor
    labels: Tensor | None
    variance: Tensor
    basis: Tensor | None
    spread: Tensor | None

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | float = 0.0,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
        schedule: Schedule | None = None,
        *,
        factors: Tensor | None = None,
        covariances: Tensor | None = None,
    ) -> None:
        require(">= 0", stds=stds)
        super().__init__(schedule or CosineSchedule())
        means = torch.as_tensor(means)
        means = means if means.is_floating_point() else means.to(torch.get_default_dtype())
        if means.ndim < 2:
            raise ValueError(f"means must be (K, *D), or (K, 1) for scalars; got {tuple(means.shape)}")
        count = len(means)
        self.shape = means.shape[1:]
        weights = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if weights.shape != (count,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {count} positive numbers, one per component")
        if labels is not None and torch.as_tensor(labels).shape != (count,):
            raise ValueError(f"labels must be {count} integers, one per component")
        stds = torch.as_tensor(stds, dtype=means.dtype, device=means.device)
        covariance = _covariance(means, stds, factors, covariances)
        self.register_buffer("means", means.flatten(1))
        self.register_buffer("log_weights", (weights / weights.sum()).to(means).log())
        self.register_buffer("labels", None if labels is None else torch.as_tensor(labels).long())
        self.register_buffer("variance", covariance.variance)
        self.register_buffer("basis", covariance.basis)
        self.register_buffer("spread", covariance.spread)
        self._point_masses = not bool(covariance.least > 0)

    @property
    def covariance(self) -> Covariance:
        """Covariance of the undiffused components."""
        return Covariance(self.variance, self.basis, self.spread)

    def forward(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Prediction:
        epsilon = self.posterior(x_t, t, condition).epsilon.view_as(x_t)
        return Prediction(x_t, t, self.schedule, epsilon=epsilon)

    def log_prob(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> Tensor:
        return self.posterior(x_t, t, condition).log_prob

    def posterior(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> MixturePosterior:
        """Exact epsilon, log-density and responsibilities p(k | x_t), in bounded memory.

        Args:
            x_t: (B, *D).
            t: in [0, 1]: a number, or (B,).
            condition: its labels (B,) select components; None: all components.

        Raises:
            ValueError: if a label has no component, the condition has labels and the mixture has none, or the mixture
                has point masses and there is no noise.
        """
        if x_t.shape[1:] != self.shape:
            raise ValueError(
                f"samples have shape {tuple(x_t.shape[1:])}, but the teacher's have shape {tuple(self.shape)}"
            )
        t = times_of(t, x_t).to(x_t.device)
        if self._point_masses:
            what = f"the score of a {type(self).__name__} whose std is 0"
            require_noise(t, self.schedule, what, f"{MORE_NOISE}, or give it a std above 0")
        flat = x_t.flatten(1)
        log_weights = self._log_weights(condition)
        alpha, sigma = self.schedule(t)
        width = 1 if self.covariance.isotropic else flat.shape[1]
        rows = max(1, CHUNK_ELEMENTS // (len(self.means) * width))
        parts = [
            diffused_mixture(
                flat[i : i + rows],
                alpha[i : i + rows],
                sigma[i : i + rows],
                self.means.to(flat.dtype),
                (log_weights if log_weights.ndim == 1 else log_weights[i : i + rows]).to(flat.dtype),
                self.covariance.to(flat.dtype),
            )
            for i in range(0, len(flat), rows)
        ]
        return MixturePosterior.cat(parts)

    def sample(
        self, n: int, condition: Condition | None = None, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw clean samples.

        Args:
            n: number of samples; with labels in the condition, the number of labels.
            condition: its labels (n,) select components.
            rng: CPU generator.

        Returns:
            samples (n, *D), and the component (n,) of each sample.
        """
        weights = self._log_weights(condition).exp().expand(n, -1).cpu()
        component = torch.multinomial(weights, 1, generator=rng)[:, 0].to(self.means.device)
        x = self.means[component]
        x = x + self.variance.expand(len(self.means), -1)[component].sqrt() * noise_like(x, rng)
        if self.basis is not None and self.spread is not None:
            scale = self.spread[component].sqrt()
            coefficients = scale * noise_like(scale, rng)
            x = x + torch.einsum("nr,nrd->nd", coefficients, self.basis[component])
        return x.view(n, *self.shape), component

    def of_class(self, label: int) -> GaussianMixture:
        """The mixture of the components of one class, without labels.

        Args:
            label: the class.

        Raises:
            ValueError: if no component has this label.
        """
        condition = Condition(label=torch.tensor([label], device=self.means.device))
        weights = self._log_weights(condition)[0]
        kept = torch.isfinite(weights)
        selected = copy(self)
        selected._buffers = {
            name: value if value is None or len(value) == 1 else value[kept] for name, value in self._buffers.items()
        }
        selected._buffers |= {"log_weights": weights[kept], "labels": None}
        return selected

    def _log_weights(self, condition: Condition | None) -> Tensor:
        """(K,), or (B, K) with -inf for components of other classes."""
        if condition is None or condition.label is None:
            return self.log_weights
        if self.labels is None:
            raise ValueError("the condition has labels, but this mixture has none: pass labels=")
        allowed = condition.label.to(self.labels.device)[:, None] == self.labels
        if not bool(allowed.any(-1).all()):
            missing = condition.label[~allowed.any(-1).cpu()][0].item()
            raise ValueError(f"no component has label {missing}; labels are {self.labels.unique().tolist()}")
        return self.log_weights.where(allowed, -torch.inf).log_softmax(-1)


def _covariance(means: Tensor, stds: Tensor, factors: Tensor | None, covariances: Tensor | None) -> Covariance:
    count, dims = means.flatten(1).shape
    if covariances is not None:
        if covariances.shape != (count, dims, dims) or factors is not None or bool(stds.any()):
            raise ValueError(f"covariances must be ({count}, {dims}, {dims}), without stds and factors")
        return Covariance.full(covariances.to(means))
    if stds.ndim <= 1:
        variance = (stds**2).reshape(-1, 1)
        if len(variance) not in (1, count):
            raise ValueError(f"stds must be a scalar, ({count},) or {tuple(means.shape)}; got {tuple(stds.shape)}")
    elif stds.shape == means.shape:
        variance = stds.flatten(1) ** 2
    else:
        raise ValueError(f"stds must be a scalar, ({count},) or {tuple(means.shape)}; got {tuple(stds.shape)}")
    if factors is None:
        return Covariance(variance)
    if variance.shape[1] != 1 or factors.shape[0] != count or factors.shape[2:] != means.shape[1:]:
        raise ValueError("factors must be (K, R, *D), in addition to isotropic stds")
    return Covariance.low_rank(variance, factors.to(means).flatten(2))


class Empirical(GaussianMixture):
    """The exact score of a finite data set: a mixture of one Dirac, or narrow Gaussian, per data point.

    It is the ideal denoiser of a training set, which memorizes by construction, and so a reference for students that
    should reproduce their data.

    Args:
        data: (N, *D).
        labels: (N,) integer classes; None: no classes.
        std: standard deviation of each component, >= 0; 0: Diracs.
        schedule: noise schedule; None: `CosineSchedule`.
    """

    def __init__(
        self, data: Tensor, labels: Tensor | None = None, std: float = 0.0, schedule: Schedule | None = None
    ) -> None:
        require(">= 0", std=std)
        super().__init__(data, std, labels=labels, schedule=schedule)


class Digits(Empirical):
    """scikit-learn's 1,797 handwritten digits, (1, 8, 8) in [-1, 1], with their labels 0 to 9.

    Args:
        std: standard deviation of each component, >= 0.
        schedule: noise schedule; None: `CosineSchedule`.

    Raises:
        ImportError: if scikit-learn is not installed.
    """

    def __init__(self, std: float = 0.0, schedule: Schedule | None = None) -> None:
        require(">= 0", std=std)
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError("Digits needs scikit-learn: install scoredistill[digits]") from error
        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.get_default_dtype())[:, None] / 8 - 1
        super().__init__(images, torch.as_tensor(digits.target), std, schedule)
