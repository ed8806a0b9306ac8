"""Fréchet and kernel distance against closed forms, direct sums and torchmetrics."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from scoredistill.evaluation import GaussianFit, frechet_distance, kernel_distance, kernel_self_similarity


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_set(mean: Tensor, root: Tensor) -> Tensor:
    """Points whose sample mean and unbiased covariance are exactly mean and root root^T."""
    dims = len(mean)
    corners = torch.cat([torch.eye(dims), -torch.eye(dims)]) * ((2 * dims - 1) / 2) ** 0.5
    return mean + corners @ root.T


def test_gaussians_of_known_moments() -> None:
    a = exact_set(torch.tensor([1.0, 0.0, 2.0]), torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    b = exact_set(torch.tensor([0.0, 0.5, 2.0]), torch.diag(torch.tensor([2.0, 2.0, 0.5])))
    # Commuting covariances: |mu - mu'|^2 + sum (s - s')^2.
    assert frechet_distance(a, b) == pytest.approx(1 + 0.25 + 1 + 0 + 6.25, rel=1e-12)


def test_rotated_gaussians() -> None:
    """For 2 x 2 matrices tr (S S')^(1/2) = sqrt(tr(S S') + 2 sqrt(det S det S'))."""
    roots = torch.randn(2, 2, 2, generator=rng())
    s, t = (root @ root.T for root in roots)
    cross = ((s @ t).trace() + 2 * (s.det() * t.det()).sqrt()).sqrt()
    expected = float(s.trace() + t.trace() - 2 * cross)
    found = frechet_distance(*(exact_set(torch.zeros(2), root) for root in roots))
    assert found == pytest.approx(expected, rel=1e-10)


def test_lines_in_different_directions() -> None:
    """Covariances of rank one: u u^T and v v^T give |u|^2 + |v|^2 - 2 |u . v|."""
    u, v = torch.randn(2, 6, generator=rng())
    along = torch.tensor([-1.0, 0.0, 1.0])[:, None]
    expected = float(u @ u + v @ v - 2 * (u @ v).abs())
    assert frechet_distance(along * u, along * v) == pytest.approx(expected, rel=1e-12)
    orthogonal = v - (u @ v) / (u @ u) * u
    expected = float(u @ u + orthogonal @ orthogonal)
    assert frechet_distance(along * u, along * orthogonal) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 5, 300])
def test_the_distance_of_a_set_to_itself_is_zero(count: int) -> None:
    x = 10 * torch.randn(count, 20, generator=rng())
    assert frechet_distance(x, x[torch.randperm(count, generator=rng())]) < 1e-10
    # A shift of all points by delta gives |delta|^2, also with fewer samples than features.
    assert frechet_distance(x, x + 0.5) == pytest.approx(20 * 0.25, rel=1e-9)


def test_torchmetrics_computes_the_same() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Flat(nn.Module):
        num_features = 12

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).double()

    a = torch.rand(200, 3, 2, 2, generator=rng())
    b = torch.rand(150, 3, 2, 2, generator=rng(1)) ** 1.5
    metric = fid.FrechetInceptionDistance(Flat(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert frechet_distance(a.flatten(1), b.flatten(1)) == pytest.approx(float(metric.compute()), rel=1e-6)
    equal = a[:150].flatten(1), b.flatten(1)
    assert kernel_distance(*equal) == pytest.approx(float(kid.poly_mmd(*equal)), rel=1e-9)


def test_kernel_distance_is_the_direct_sum() -> None:
    a, b = torch.randn(7, 4, generator=rng()), torch.randn(5, 4, generator=rng(1)) + 0.3

    def k(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 4 + 1) ** 3)

    def mean(pairs: list[tuple[Tensor, Tensor]]) -> float:
        return sum(k(x, y) for x, y in pairs) / len(pairs)

    within = [mean(list(itertools.permutations(rows, 2))) for rows in (a, b)]
    expected = sum(within) - 2 * mean(list(itertools.product(a, b)))
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a, b, self_b=kernel_self_similarity(b)) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    draws = torch.randn(300, 2, 20, 3, generator=rng())
    values = torch.tensor([kernel_distance(a, b) for a, b in draws])
    assert values.mean().abs() < 3 * values.std() / 300**0.5
    assert bool((values < 0).any())


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_that_cannot_be_compared_are_refused(distance) -> None:
    x = torch.randn(5, 3, generator=rng())
    with pytest.raises(ValueError, match="at least 2 rows"):
        distance(x[:1], x)
    with pytest.raises(ValueError, match="rows of 3 and 2"):
        distance(x, x[:, :2])
    with pytest.raises(ValueError, match="1 of 5 rows are not finite"):
        distance(x.clone().index_fill_(0, torch.tensor([2]), torch.nan), x)


def test_fits_are_kept_for_many_comparisons() -> None:
    a, b = torch.randn(2, 30, 4, generator=rng())
    assert GaussianFit.of(a).distance(GaussianFit.of(b)) == frechet_distance(a, b)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
