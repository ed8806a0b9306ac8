"""Regularizers against values computed by hand."""

from dataclasses import replace
from math import log

import pytest
import torch

from scoredistill.generators.fields import DenseGrid, DirectHead, Frequency
from scoredistill.generators.nerf import (
    DensityBlob,
    Emptiness,
    Entropy,
    Opacity,
    Orientation,
    Sparsity,
    TotalVariation,
    ZVariance,
)
from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.march import March
from scoredistill.generators.nerf.ray_sampling import RaySamples

GRID = DenseGrid(resolution=3)
GRID.allocate(1, torch.Generator())
FIELD = Field(GRID, DirectHead(), DensityBlob(), "exp")


@pytest.fixture
def march() -> March:
    """Two rays along +z and two samples on the first, at distances 1 and 3."""
    weights, ray, distance = torch.tensor([0.5, 0.25]), torch.tensor([0, 0]), torch.tensor([1.0, 3.0])
    samples = RaySamples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), ray, distance, torch.ones(2))
    opacity = torch.tensor([0.75, 0.0])
    directions = torch.tensor([[0.0, 0, 1], [0, 0, 1]])
    normals = torch.tensor([[0.0, 0.6, 0.8], [0, 0, -1]])
    return March(
        samples, ray, directions, torch.ones(2), weights, normals, torch.zeros(2, 3), opacity, torch.tensor([1.25, 0])
    )


def test_values(march):
    assert float(Sparsity()(march, FIELD)) == pytest.approx((0.5725**0.5 + 0.1) / 2)
    assert float(Opacity()(march, FIELD)) == pytest.approx(0.5625 / 2)
    emptiness = Emptiness(scale=10.0)(march, FIELD)
    assert float(emptiness) == pytest.approx(float(torch.log(1 + 10 * march.weights).sum()) / 2)
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25)) / 2
    assert float(Entropy()(march, FIELD)) == pytest.approx(entropy, abs=1e-4)
    assert float(Orientation()(march, FIELD)) == pytest.approx(0.5 * 0.64 / 2)
    # distances 1 and 3 with shares 2/3 and 1/3: mean 5/3
    assert float(ZVariance()(march, FIELD)) == pytest.approx(2 / 3 * (2 / 3) ** 2 + 1 / 3 * (4 / 3) ** 2)


def test_total_variation_of_a_slope():
    GRID.grid.data = torch.zeros(1, 3, 3, 3, 4)
    GRID.grid.data[0, :, :, :, 1] = 2 * torch.arange(3.0)[:, None, None]
    assert TotalVariation()(None, FIELD).item() == pytest.approx(4 / 4)
    (ours,) = torch.autograd.grad(3 * TotalVariation()(None, FIELD), GRID.grid)
    plain = sum(GRID.grid.diff(dim=d).square().mean() for d in (1, 2, 3))
    torch.testing.assert_close(ours, torch.autograd.grad(3 * plain, GRID.grid)[0])
    other = Field(Frequency(), DirectHead(), DensityBlob(), "exp")
    with pytest.raises(ValueError, match="DenseGrid"):
        TotalVariation()(None, other)


def test_orientation_needs_normals(march):
    with pytest.raises(ValueError, match="normals"):
        Orientation()(replace(march, normals=None), FIELD)


def test_empty_rays_are_finite(march):
    empty = replace(march, opacity=torch.zeros(2, requires_grad=True), weights=torch.zeros(2))
    for regularizer in (Sparsity(), Opacity(), Emptiness(), Entropy(), ZVariance()):
        value = regularizer(empty, FIELD)
        assert value.isfinite()
